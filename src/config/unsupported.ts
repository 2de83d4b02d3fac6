import type { Path, Problem } from './problems.ts';

interface Later {
  /** `*` stands for any name. */
  readonly path: Path;
  /** Only these values of it; without them, the key itself. */
  readonly values?: readonly string[];
  readonly hint: string;
}

/** What the config contract names and this version cannot do yet. It is refused, never ignored. */
const LATER: readonly Later[] = [
  {
    path: ['streams', '*', 'encrypt'],
    hint: 'this version stores chunks unencrypted: remove it only if the store may hold them so',
  },
  { path: ['plans', '*', 'copies'], hint: 'this version ships to the primary alone: copy the store by other means' },
  { path: ['plans', '*', 'delay'], hint: 'it is for copies, which this version does not make' },
];

export function unsupported(file: unknown): Problem[] {
  return LATER.flatMap(({ path, values, hint }) =>
    matches(file, path).flatMap((match): Problem[] => {
      if (!values) return [{ path: match.path, message: 'not supported by this version', hint }];
      const value = values.find((known) => known === match.value);
      return value === undefined
        ? []
        : [{ path: match.path.slice(0, -1), message: `type: ${value} is not supported by this version`, hint }];
    }),
  );
}

function matches(node: unknown, [key, ...rest]: Path, above: Path = []): { path: Path; value: unknown }[] {
  if (key === undefined) return [{ path: above, value: node }];
  if (typeof node !== 'object' || node === null) return [];
  return Object.entries(node)
    .filter(([name]) => key === '*' || key === name)
    .flatMap(([name, value]) => matches(value, rest, [...above, name]));
}
