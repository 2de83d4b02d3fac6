import { type Document, isMap, isPair, isScalar, isSeq, LineCounter, parseDocument } from 'yaml';
import type { z } from 'zod';
import { nearestHint } from '../core/nearest.ts';
import { UsageError } from '../errors.ts';
import { splitHint } from './values.ts';

export type Path = readonly PropertyKey[];

/** Something wrong at a place in a config file. */
export interface Problem {
  readonly path: Path;
  readonly message: string;
  readonly hint?: string | undefined;
}

const SHOWN = 3;

export function pathText(path: Path): string {
  return path.map((key, at) => (typeof key === 'number' ? `[${key}]` : `${at > 0 ? '.' : ''}${String(key)}`)).join('');
}

/** A YAML file's text, and where in it things are. */
export class YamlText {
  readonly #file: string;
  readonly #lines = new LineCounter();
  readonly #document: Document.Parsed;

  /** Throws UsageError if it is not YAML. */
  constructor(text: string, file: string) {
    this.#file = file;
    this.#document = parseDocument(text, { lineCounter: this.#lines, prettyErrors: false });
    const [error] = this.#document.errors;
    if (!error) return;
    const { line, col } = this.#lines.linePos(error.pos[0]);
    throw new UsageError(
      `${file}, line ${line}, column ${col}: not valid YAML: ${oneLine(error.message)}`,
      text.split('\n')[line - 1]?.includes('${')
        ? `inside { } and [ ], put quotes around "\${NAME}"`
        : 'check indentation and quotes there',
    );
  }

  /** Throws UsageError where an alias can't be followed. What it is called is not repeated: it may be an unquoted password. */
  value(): unknown {
    try {
      const value: unknown = this.#document.toJS();
      JSON.stringify(value); // fails where something is inside itself
      return value;
    } catch {
      throw new UsageError(
        `${this.#file}: not valid YAML: an alias ("*" and a name) has no anchor ("&") before it, or is inside of what it names`,
        'put quotes around a text that begins with "*"',
      );
    }
  }

  /** One error for all problems: the first few in its message, the first one's hint. */
  error(problems: readonly Problem[]): UsageError {
    const told = problems.slice(0, SHOWN).map(({ path, message }) => {
      const where = pathText(path);
      return `line ${this.#lineOf(path)}: ${where && `${where}: `}${message}`;
    });
    const more = problems.length - told.length;
    return new UsageError(
      `${this.#file}, ${told.join('; ')}${more > 0 ? `; and ${more} more` : ''}`,
      problems[0]?.hint ?? '"shipmate config example" prints a config with comments',
    );
  }

  /** The line of the innermost part of the path that is in the file. */
  #lineOf(path: Path): number {
    let node: unknown = this.#document.contents;
    let offset = 0;
    for (const key of path) {
      const item: unknown = isMap(node)
        ? node.items.find((pair) => isScalar(pair.key) && pair.key.value === key)
        : isSeq(node)
          ? node.items[Number(key)]
          : undefined;
      const start = isPair(item) ? item.key : item;
      if (!hasRange(start)) break;
      offset = start.range[0];
      node = isPair(item) ? item.value : item;
    }
    return this.#lines.linePos(offset).line;
  }
}

function hasRange(node: unknown): node is { range: [number, number, number] } {
  return typeof node === 'object' && node !== null && 'range' in node && Array.isArray(node.range);
}

const oneLine = (text: string) => text.replace(/\s*\n\s*/g, ' ').replace(/:$/, '');

/** What zod found, in our words; unknown keys first, for they are why others are missing. Values are never repeated. */
export function problemsOf(issues: readonly z.core.$ZodIssue[]): Problem[] {
  const unknownFirst = issues.toSorted((a, b) => Number(b.code === UNKNOWN) - Number(a.code === UNKNOWN));
  return unknownFirst.flatMap((issue) => problemsIn(issue, []));
}

const UNKNOWN = 'unrecognized_keys';

function problemsIn(issue: z.core.$ZodIssue, above: Path): Problem[] {
  const path = [...above, ...issue.path];
  const missing: Problem = { path, message: 'is missing' };
  switch (issue.code) {
    case UNKNOWN:
      return issue.keys.map((key) => ({ path: [...path, key], ...splitHint(issue.message) }));
    case 'invalid_key':
      return [{ path, ...splitHint(issue.issues[0]?.message ?? issue.message) }];
    case 'invalid_type':
      return [issue.input === undefined ? missing : { path, message: typeMessage(issue) }];
    case 'invalid_value':
      return [issue.input === undefined ? missing : { path, ...choice(issue.input, issue.values.map(String)) }];
    case 'invalid_union': {
      // Of a map that holds `type`: zod points at that key, and knows what it may be.
      if ('options' in issue && Array.isArray(issue.options)) {
        return [{ path, ...choice(issue.input ?? '', issue.options.map(String)) }];
      }
      const meant = issue.errors.find((branch) => branch.some(isInside));
      if (meant) return problemsOf(meant).map((problem) => ({ ...problem, path: [...path, ...problem.path] }));
      return [issue.input === undefined ? missing : { path, ...splitHint(issue.message) }];
    }
    default:
      return [{ path, ...splitHint(issue.message) }];
  }
}

/** Whether an issue of one alternative says that this alternative was meant: the value has its shape, and a fault. */
const isInside = ({ code, path }: z.core.$ZodIssue) => path.length > 0 || code === UNKNOWN;

/** Our own words if the schema has them, else what kind of value belongs there. */
function typeMessage({ message, expected }: z.core.$ZodIssueInvalidType): string {
  const kinds: Record<string, string> = { string: 'text', object: 'a map', record: 'a map', array: 'a list' };
  return message.startsWith('Invalid input') ? `must be ${kinds[expected] ?? expected}` : message;
}

function choice(given: unknown, values: readonly string[]): { message: string; hint: string } {
  const message = values.length > 1 ? `must be one of ${values.join(', ')}` : `must be ${values[0]}`;
  return { message, hint: nearestHint(String(given), values) };
}
