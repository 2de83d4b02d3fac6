import { readFileSync } from 'node:fs';
import { messageOf, ShipmateError, UsageError } from '../errors.ts';
import { type Path, type Problem, pathText } from './problems.ts';

/** An environment variable that the file asks for and that has no value. */
export interface Missing {
  readonly path: Path;
  readonly variable: string;
  /** Why there is none, where it is set by a file. */
  readonly unreadable?: string;
}

export interface Interpolated {
  readonly value: unknown;
  readonly missing: readonly Missing[];
  readonly problems: readonly Problem[];
}

const PLACEHOLDER = /\$\$|\$\{([^}]*)\}?/g;
const VARIABLE = /^[A-Za-z_][A-Za-z0-9_]*$/;

/**
 * Puts environment variables in for `${NAME}` in every text; `$$` is a plain dollar sign. Keys stay as they are. Where NAME
 * is not set but NAME_FILE is, the first line of that file counts: containers are handed secrets as files.
 */
export function interpolate(file: unknown, environment: NodeJS.ProcessEnv): Interpolated {
  const missing: Missing[] = [];
  const problems: Problem[] = [];

  const inText = (text: string, path: Path) =>
    text.replace(PLACEHOLDER, (match: string, variable: string | undefined) => {
      if (variable === undefined) return '$';
      if (!match.endsWith('}') || !VARIABLE.test(variable)) {
        problems.push({
          path,
          message: `has a "\${" that is not \${NAME}`,
          hint: 'write "$$" for a plain dollar sign',
        });
        return match;
      }
      const { value, unreadable } = lookUp(variable, environment);
      if (value === undefined) missing.push({ path, variable, ...(unreadable !== undefined && { unreadable }) });
      return value ?? match;
    });

  const within = (node: unknown, path: Path): unknown => {
    if (typeof node === 'string') return inText(node, path);
    if (Array.isArray(node)) return node.map((item, at) => within(item, [...path, at]));
    if (typeof node !== 'object' || node === null) return node;
    return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, within(value, [...path, key])]));
  };

  return { value: within(file, []), missing, problems };
}

function lookUp(variable: string, environment: NodeJS.ProcessEnv): { value?: string; unreadable?: string } {
  const value = environment[variable];
  if (value !== undefined) return { value };
  const file = environment[`${variable}_FILE`];
  if (file === undefined) return {};
  try {
    return { value: readFileSync(file, 'utf8').split(/\r?\n/, 1)[0] ?? '' };
  } catch (error) {
    return { unreadable: messageOf(error) };
  }
}

/** A part of a config that a command may do without, and what stands in for it, validly, while the file is checked. */
interface Part {
  readonly path: Path;
  /** Of what the part is in, as the file gives it, and of the part's place: no two places must look like one. */
  readonly standIn: (parent: object, path: string) => unknown;
  /** What it is called in a config that was read, where that is another name. */
  readonly readAs?: string;
}

/**
 * `ls`, say, reads one store, and of a source only what kind of log it is: it needs the variables of that store alone. A part of
 * a part comes before it.
 */
const PARTS: readonly Part[] = [
  { path: ['node'], standIn: () => 'unset' },
  { path: ['cluster'], standIn: () => 'unset' },
  { path: ['stateDir'], standIn: () => '/unset' },
  { path: ['coordination'], standIn: () => 'solo' },
  { path: ['onEtcdLoss'], standIn: () => 'continue' },
  { path: ['admin'], standIn: () => 'off' },
  { path: ['stores', '*'], standIn: (_, path) => ({ type: 'file', path: `/unset/${path}` }) },
  { path: ['streams', '*', 'source', 'url'], standIn: (source) => `${scheme(source)}://unset` },
  { path: ['streams', '*', 'source', 'dir'], standIn: (_, path) => `/unset/${path}` },
  { path: ['streams', '*', 'source'], standIn: () => ({ type: 'mariadb', dir: '/unset' }) },
  { path: ['streams', '*', 'chunk'], standIn: () => ({}) },
  {
    path: ['streams', '*', 'encrypt'],
    standIn: () => ({ recipients: [`age1${'q'.repeat(58)}`] }),
    readAs: 'recipients',
  },
  { path: ['streams', '*', 'keep'], standIn: () => ({ segments: 1 }) },
  { path: ['limits'], standIn: () => ({ link: '1TB/s' }) },
];

const scheme = (source: object) => ('type' in source && source.type === 'postgres' ? 'postgresql' : 'mariadb');

const CHECK_FILE = 'check its path and its rights';

/** Of a file that holds a secret. The config is not wrong for that: at boot the file may come late, and a new start finds it. */
export const unreadableFile = (message: string) =>
  new ShipmateError(message, { code: 'SECRET_FILE_UNREADABLE', hint: CHECK_FILE });

export function missingProblem({ path, variable, unreadable }: Missing): Problem {
  if (unreadable !== undefined) {
    return { path, message: `${variable}_FILE can't be read: ${unreadable}`, hint: CHECK_FILE };
  }
  return {
    path,
    message: `environment variable ${variable} is not set`,
    hint: `set ${variable} where shipmate is started`,
  };
}

/**
 * Replaces the parts whose variables are missing by stand-ins; `guard` then makes the same parts of what was read from
 * the file throw when somebody reads them. What no part covers is a problem at once.
 */
export function withoutMissing(file: unknown, missing: readonly Missing[]) {
  const guarded: { path: Path; missing: Missing }[] = [];
  const problems: Problem[] = [];
  for (const one of missing) {
    const part = PARTS.find(({ path }) => path.every((key, at) => key === '*' || key === one.path[at]));
    if (!part) {
      problems.push(missingProblem(one));
      continue;
    }
    const path = one.path.slice(0, part.path.length);
    define(file, path, (parent) => ({ value: part.standIn(parent, pathText(path)), enumerable: true, writable: true }));
    guarded.push({ path: part.readAs === undefined ? path : [...path.slice(0, -1), part.readAs], missing: one });
  }

  // What is inside another part first: that one can't be looked into afterwards.
  guarded.sort((a, b) => b.path.length - a.path.length);
  const guard = (config: object) => {
    for (const { path, missing: one } of guarded) {
      define(config, path, () => ({ get: () => raise(one), enumerable: true }));
    }
  };
  return { problems, guard };
}

function raise(missing: Missing): never {
  const { message, hint } = missingProblem(missing);
  const told = `${pathText(missing.path)}: ${message}`;
  throw missing.unreadable === undefined ? new UsageError(told, hint) : unreadableFile(told);
}

function define(root: unknown, path: Path, property: (parent: object) => PropertyDescriptor): void {
  const parent = path.slice(0, -1).reduce<unknown>((node, key) => {
    return typeof node === 'object' && node !== null ? Reflect.get(node, key) : undefined;
  }, root);
  if (typeof parent === 'object' && parent !== null) {
    Object.defineProperty(parent, path.at(-1)!, { ...property(parent), configurable: true });
  }
}
