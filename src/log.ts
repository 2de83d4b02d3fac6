import { styleText } from 'node:util';
import winston from 'winston';
import { LOG_LEVELS, type Log, type LogFields, type LogLevel, redact } from './core/log.ts';
import { isError, UsageError } from './errors.ts';
import { priorityPrefix, stderrIsJournal } from './journal.ts';

/** JSON lines; readable lines; the same for systemd's journal, which has the time already. */
const STYLES = ['json', 'text', 'journal'] as const;
export type LogStyle = (typeof STYLES)[number];
const SECRET_FIELD = /password|secret|token|credential/i;

export interface LogOptions {
  /** Fields of every line. */
  readonly node: string;
  readonly level?: LogLevel;
  readonly style?: LogStyle;
  readonly out?: NodeJS.WritableStream & { isTTY?: boolean };
}

export interface NodeLog extends Log {
  /** The same log with more fields on every line: `log.child({ stream: 'orders' })`. */
  child(fields: LogFields): NodeLog;
  /** From now on, of all logs that have come from this one, and of what this one came from. */
  setLevel(level: LogLevel): void;
}

/** The level that SHIPMATE_LOG_LEVEL asks for, and without it the config. */
export function logLevel(environment: NodeJS.ProcessEnv = process.env, configured: LogLevel = 'info'): LogLevel {
  return oneOf(LOG_LEVELS, 'SHIPMATE_LOG_LEVEL', environment) ?? configured;
}

/** The style that SHIPMATE_LOG_FORMAT asks for, and without it what suits the reader. */
export function logStyle(isTerminal: boolean, environment: NodeJS.ProcessEnv = process.env): LogStyle {
  const asked = oneOf(STYLES, 'SHIPMATE_LOG_FORMAT', environment);
  return asked ?? (stderrIsJournal(environment) ? 'journal' : isTerminal ? 'text' : 'json');
}

function oneOf<T extends string>(known: readonly T[], name: string, environment: NodeJS.ProcessEnv): T | null {
  const asked = environment[name];
  if (!asked) return null;
  const found = known.find((one) => one === asked);
  if (!found) throw new UsageError(`${name} is "${asked}"`, `it is one of ${known.join(', ')}`);
  return found;
}

/** The daemon's log on stderr. Passwords in URLs never reach it. */
export function createLog({
  node,
  level = logLevel(),
  out = process.stderr,
  style = logStyle(out.isTTY ?? false),
}: LogOptions): NodeLog {
  const logger = winston.createLogger({
    level,
    levels: { error: 0, warn: 1, info: 2, debug: 3 },
    format: winston.format.printf((entry) => {
      const line = {
        level: LOG_LEVELS.find((known) => known === entry.level) ?? 'info',
        message: redact(String(entry.message)),
        fields: plainFields(entry.fields, logger.level === 'debug'),
      };
      if (style === 'json') return jsonLine(line);
      return style === 'text' ? textLine(line, out) : journalLine(line);
    }),
    transports: [new winston.transports.Stream({ stream: out, eol: '\n' })],
  });

  const childOf = (common: LogFields): NodeLog => {
    const write = (lineLevel: LogLevel) => (message: string, fields?: LogFields) => {
      logger.log({ level: lineLevel, message, fields: { ...common, ...fields } });
    };
    return {
      debug: write('debug'),
      info: write('info'),
      warn: write('warn'),
      error: write('error'),
      child: (fields) => childOf({ ...common, ...fields }),
      setLevel(next) {
        logger.level = next;
      },
    };
  };
  return childOf({ node });
}

interface Line {
  readonly level: LogLevel;
  readonly message: string;
  readonly fields: Record<string, unknown>;
}

function jsonLine({ level, message, fields }: Line): string {
  const head = { time: new Date().toISOString(), level, message };
  return JSON.stringify({ ...head, ...fields, ...head }); // the head comes first, and no field replaces it
}

const COLOURS = { debug: 'gray', info: 'green', warn: 'yellow', error: 'red' } as const;

function textLine({ level, message, fields }: Line, out: NodeJS.WritableStream): string {
  const paint = (style: Parameters<typeof styleText>[0], text: string) => styleText(style, text, { stream: out });
  const time = paint('gray', new Date().toISOString().slice(11, 23));
  const { stream, facts } = wordsOf(fields);
  return [
    time,
    paint(COLOURS[level], level.padEnd(5)),
    ...(stream === '' ? [] : [paint('bold', stream)]),
    oneLine(message),
    ...(facts === '' ? [] : [paint('gray', facts)]),
  ].join(' ');
}

function journalLine({ level, message, fields }: Line): string {
  const { stream, facts } = wordsOf(fields);
  return `${priorityPrefix(level)}${[stream && `${stream}:`, oneLine(message), facts].filter(Boolean).join(' ')}`;
}

/** `reason="same bytes" term=3`; where there is only one daemon, its node says nothing. */
function wordsOf({ node: _, stream, ...rest }: Record<string, unknown>): { stream: string; facts: string } {
  const facts = Object.entries(rest).map(([name, value]) => {
    return `${name}=${typeof value === 'string' && !/[\s"=]/.test(value) ? value : JSON.stringify(value)}`;
  });
  return { stream: stream === undefined ? '' : String(stream), facts: facts.join(' ') };
}

const oneLine = (text: string) => text.replace(/\s*[\r\n]+\s*/g, ' ');

/** Fields as JSON holds them: errors opened, big integers as text, secrets gone. */
function plainFields(fields: unknown, withStacks: boolean): Record<string, unknown> {
  const text = JSON.stringify(fields ?? {}, (name, value: unknown) => {
    if (SECRET_FIELD.test(name)) return '***';
    if (typeof value === 'string') return redact(value);
    if (typeof value === 'bigint') return value.toString();
    return isError(value) ? plainError(value, withStacks) : value;
  });
  return JSON.parse(text);
}

function plainError(error: Error, withStacks: boolean): Record<string, unknown> {
  const { message, cause } = error;
  return {
    message,
    ...('code' in error && { code: error.code }),
    ...('hint' in error && error.hint !== undefined && { hint: error.hint }),
    ...(cause !== undefined && { cause: isError(cause) ? plainError(cause, withStacks) : String(cause) }),
    ...(withStacks && { stack: error.stack }),
  };
}
