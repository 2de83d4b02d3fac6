import { styleText } from 'node:util';
import winston from 'winston';
import { type Log, type LogFields, type LogLevel, redact } from './core/log.ts';
import { isError, UsageError } from './errors.ts';

const LEVELS: readonly LogLevel[] = ['debug', 'info', 'warn', 'error'];
const SECRET_FIELD = /password|secret|token|credential/i;

export interface LogOptions {
  /** Fields of every line. */
  readonly node: string;
  readonly level?: LogLevel;
  /** One readable line an entry instead of JSON; by default where `out` is a terminal. */
  readonly pretty?: boolean;
  readonly out?: NodeJS.WritableStream & { isTTY?: boolean };
}

export interface NodeLog extends Log {
  /** The same log with more fields on every line: `log.child({ stream: 'orders' })`. */
  child(fields: LogFields): NodeLog;
}

/** The level that SHIPMATE_LOG_LEVEL asks for: `info` without it. */
export function logLevel(environment: NodeJS.ProcessEnv = process.env): LogLevel {
  const asked = environment.SHIPMATE_LOG_LEVEL || 'info';
  const level = LEVELS.find((known) => known === asked);
  if (!level) throw new UsageError(`SHIPMATE_LOG_LEVEL is "${asked}"`, `it is one of ${LEVELS.join(', ')}`);
  return level;
}

/** The daemon's log on stderr: JSON lines, or pretty ones on a terminal. Passwords in URLs never reach it. */
export function createLog({
  node,
  level = logLevel(),
  out = process.stderr,
  pretty = out.isTTY ?? false,
}: LogOptions): NodeLog {
  const withStacks = level === 'debug';
  const logger = winston.createLogger({
    level,
    levels: { error: 0, warn: 1, info: 2, debug: 3 },
    format: winston.format.printf((entry) => {
      const fields = plainFields(entry.fields, withStacks);
      const line = { level: entry.level, message: redact(String(entry.message)), fields };
      return pretty ? prettyLine(line, out) : jsonLine(line);
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
    };
  };
  return childOf({ node });
}

interface Line {
  level: string;
  message: string;
  fields: Record<string, unknown>;
}

function jsonLine({ level, message, fields }: Line): string {
  const head = { time: new Date().toISOString(), level, message };
  return JSON.stringify({ ...head, ...fields, ...head }); // the head comes first, and no field replaces it
}

const COLOURS = { debug: 'gray', info: 'green', warn: 'yellow', error: 'red' } as const;

function prettyLine(
  { level, message, fields: { node: _, stream, ...rest } }: Line,
  out: NodeJS.WritableStream,
): string {
  const paint = (style: Parameters<typeof styleText>[0], text: string) => styleText(style, text, { stream: out });
  const colour = LEVELS.find((known) => known === level) ?? 'info';
  const time = paint('gray', new Date().toISOString().slice(11, 23));
  const facts = Object.entries(rest).map(([name, value]) => {
    return `${name}=${typeof value === 'string' && !/[\s"=]/.test(value) ? value : JSON.stringify(value)}`;
  });
  return [
    time,
    paint(COLOURS[colour], level.padEnd(5)),
    ...(stream === undefined ? [] : [paint('bold', String(stream))]),
    message,
    ...(facts.length > 0 ? [paint('gray', facts.join(' '))] : []),
  ].join(' ');
}

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
