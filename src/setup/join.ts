import { isMap, parseDocument } from 'yaml';
import { UsageError } from '../errors.ts';
import type { Database } from './databases.ts';
import { type NamedDatabase, sourceOf } from './plan.ts';

export interface Joining {
  /** The first twin's config file, as it is. */
  readonly text: string;
  readonly node: string;
  readonly user: string;
  /** Of this host. */
  readonly databases: readonly Database[];
  /** Which of them is a stream's, where it was given. */
  readonly given: ReadonlyMap<string, Database>;
}

export interface Joined {
  readonly text: string;
  readonly streams: readonly NamedDatabase[];
}

/** The second twin's config: the first one's with its comments, but this host's name, directories and servers. Throws UsageError. */
export function joinConfig({ text, node, user, databases, given }: Joining): Joined {
  const document = parseDocument(text);
  const problem = document.errors[0];
  if (problem || !isMap(document.contents))
    throw new UsageError(`the first twin's config is no config: ${problem?.message ?? 'it holds no keys'}`);
  if (document.get('coordination') === 'solo') {
    throw new UsageError(
      "the first twin's config says coordination: solo: it has no twin",
      'give it an etcd first, then join',
    );
  }
  if (document.get('node') === node) {
    throw new UsageError(`the first twin is called ${node} as well`, 'give this one a name of its own: --node NAME');
  }
  document.set('node', node);
  const streams = document.get('streams');
  const names = isMap(streams) ? streams.items.map(({ key }) => String(key)) : [];
  const named = names.flatMap((name): NamedDatabase[] => {
    const source = document.toJS().streams[name]?.source ?? {};
    const database = given.get(name) ?? counterpart(name, source, databases);
    if (database === null) return [];
    const { type: _, ...here } = sourceOf(database, user);
    for (const [key, value] of Object.entries(here)) {
      if (key !== 'url' || source.url !== undefined) document.setIn(['streams', name, 'source', key], value);
    }
    return [{ name, database }];
  });
  return { text: document.toString({ lineWidth: 0 }), streams: named };
}

/** This host's database of a stream: the one in the same place, or the only one of its kind. Null: plain files, which stay as they are. */
function counterpart(
  stream: string,
  { type, dir, layout }: Record<string, unknown>,
  databases: readonly Database[],
): Database | null {
  if (type === 'files' && layout !== 'redis-aof') return null;
  const kind = type === 'files' ? 'redis' : type;
  const same = databases.filter((one) => one.type === kind);
  const found = same.find((one) => one.dir === dir) ?? (same.length === 1 ? same[0] : undefined);
  if (found) return found;
  throw new UsageError(
    `stream ${stream}: which ${kind} of this host is it? ${same.length === 0 ? 'none was found' : `there are ${same.map((one) => one.dir).join(', ')}`}`,
    `name its directory: --source ${stream}=DIR`,
  );
}
