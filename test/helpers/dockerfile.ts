/** One step of a stage, its variables and continued lines resolved. */
export interface Step {
  readonly instruction: string;
  /** `--from=build` as `from: build`. */
  readonly flags: Readonly<Record<string, string>>;
  readonly text: string;
}

export interface Stage {
  readonly name: string;
  /** An image, or the name of a stage before it. */
  readonly base: string;
  readonly steps: readonly Step[];
}

const STEPS = new Set([
  'RUN',
  'COPY',
  'ENV',
  'WORKDIR',
  'USER',
  'LABEL',
  'EXPOSE',
  'STOPSIGNAL',
  'HEALTHCHECK',
  'ENTRYPOINT',
  'CMD',
]);

/** Reads a Dockerfile into its stages. Throws for what a builder would refuse, and for what the tests don't carry out. */
export function parseDockerfile(text: string): readonly Stage[] {
  const stages: { name: string; base: string; steps: Step[] }[] = [];
  const values = new Map<string, string>();
  for (const line of logicalLines(text)) {
    const [, instruction = '', rest = ''] = /^([A-Za-z]+)\s+(.*)$/s.exec(line) ?? [];
    const upper = instruction.toUpperCase();
    if (upper === 'ARG' && stages.length === 0) {
      const [name = '', value] = rest.split(/=(.*)/s);
      if (value === undefined) throw new Error(`ARG without a default: ${line}`);
      values.set(name, value);
    } else if (upper === 'FROM') {
      const [base = '', as, name] = resolve(rest, values).split(/\s+/);
      if (name !== undefined && as?.toUpperCase() !== 'AS') throw new Error(`not understood: ${line}`);
      stages.push({ name: name ?? String(stages.length), base, steps: [] });
    } else {
      const stage = stages.at(-1);
      if (!STEPS.has(upper) || !stage) throw new Error(`not understood here: ${line}`);
      stage.steps.push(stepOf(upper, rest));
    }
  }
  return stages;
}

function logicalLines(text: string): string[] {
  const lines = text.split('\n').filter((line) => !/^\s*#/.test(line));
  return lines
    .join('\n')
    .replaceAll(/\\\n/g, ' ')
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

function resolve(text: string, values: ReadonlyMap<string, string>): string {
  return text.replaceAll(/\$\{(\w+)\}/g, (_, name: string) => {
    const value = values.get(name);
    if (value === undefined) throw new Error(`no ARG gives ${name} a value`);
    return value;
  });
}

function stepOf(instruction: string, rest: string): Step {
  const flags: Record<string, string> = {};
  let text = rest;
  for (let found = /^--(\w[\w-]*)=(\S+)\s+/.exec(text); found; found = /^--(\w[\w-]*)=(\S+)\s+/.exec(text)) {
    flags[found[1]!] = found[2]!;
    text = text.slice(found[0].length);
  }
  if (text.startsWith('--')) throw new Error(`not understood: ${instruction} ${rest}`);
  return { instruction, flags, text };
}

/** `["a", "b"]`, or a line for a shell. */
export function commandOf(text: string): readonly string[] {
  if (!text.startsWith('[')) return ['/bin/sh', '-c', text];
  const words: unknown = JSON.parse(text);
  if (!Array.isArray(words)) throw new Error(`no list of words: ${text}`);
  return words.map(String);
}

/** `A=b C="d e"` */
export function pairsOf(text: string): Readonly<Record<string, string>> {
  const pairs = [...text.matchAll(/([\w.]+)=(?:"([^"]*)"|(\S+))/g)];
  return Object.fromEntries(pairs.map(([, name, quoted, plain]) => [name, quoted ?? plain ?? '']));
}

/**
 * Which files a builder is handed: those that .dockerignore does not leave out, where the last line that fits decides. Paths
 * are relative to the context.
 */
export function isInContext(ignoreFile: string): (path: string) => boolean {
  const rules = ignoreFile
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => ({ keeps: line.startsWith('!'), pattern: line.replace(/^!/, '').replace(/^\/|\/$/g, '') }));
  return (path) => {
    const parts = path.split('/');
    const upTo = parts.map((_, at) => parts.slice(0, at + 1).join('/'));
    const fits = (pattern: string) => pattern === '*' || upTo.includes(pattern);
    return rules.findLast(({ pattern }) => fits(pattern))?.keeps ?? true;
  };
}
