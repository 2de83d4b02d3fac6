import type { Position } from './position.ts';

/** What `status --json` and the status page's API give: a contract that others script against. */
export interface StatusReport {
  readonly cluster: string;
  readonly streams: readonly StreamStatus[];
}

export interface StreamStatus {
  readonly name: string;
  /** The node that leads; null while none does. */
  readonly master: string | null;
  /** Place of the cursor; both 0 before the first term was opened. */
  readonly term: number;
  readonly slot: number;
  /** Up to where the archive is durable; null while nothing was shipped. */
  readonly cursor: {
    readonly id: string;
    readonly segment: string;
    readonly offset: number;
    readonly time: string;
  } | null;
  /** The largest over the twins (protocol rule 21); null while no twin tells. */
  readonly lagBytes: number | null;
  /** Age of the oldest byte that is not shipped, the largest over the twins. */
  readonly lagSeconds: number | null;
  readonly twins: readonly TwinStatus[];
  readonly stores: readonly StoreStatus[];
}

export interface TwinStatus {
  readonly node: string;
  readonly role: string;
  /** Whether it is master or could take over now. */
  readonly ready: boolean;
  readonly reason: string;
  readonly lagBytes: number | null;
}

/**
 * Of the primary: the stream's lag. Of a copy: what is due there and missing, in bytes of objects; null while nobody tells.
 */
export interface StoreStatus {
  readonly name: string;
  readonly lagBytes: number | null;
  readonly lagSeconds: number | null;
  /** Of a copy alone: how much later than the primary it is meant to be. */
  readonly delaySeconds?: number;
  readonly state?: CopyState;
  /** Why a copy fails or has diverged. */
  readonly reason?: string;
}

/**
 * `waiting`: not begun yet; `ok`: it holds what is due, or gets it; `failing`: tried again until it succeeds; `diverged`:
 * it holds something else than the primary, and is left alone until a person has looked.
 */
export const COPY_STATES = ['waiting', 'ok', 'failing', 'diverged'] as const;
export type CopyState = (typeof COPY_STATES)[number];

/** What a master tells of a copy. */
export interface CopyStatus extends StoreStatus {
  readonly delaySeconds: number;
  readonly state: CopyState;
}

/** What the twins have told, in as much as a report needs it. */
export interface Told {
  readonly streams: readonly {
    readonly name: string;
    readonly master: string | null;
    readonly cursor: ToldCursor | null;
    /** Which copy has become the primary, whatever the config says. */
    readonly promotion?: { readonly store: string };
  }[];
  readonly twins: readonly { readonly node: string; readonly streams: readonly ToldStream[] }[];
}

interface ToldCursor {
  readonly term: number;
  readonly slot: number;
  readonly position: Position | null;
  readonly time: string;
}

interface ToldStream extends Omit<TwinStatus, 'node'> {
  readonly name: string;
  readonly lagSeconds: number | null;
  readonly stores?: readonly CopyStatus[];
}

export interface Expected {
  readonly cluster: string;
  /** The config's streams: name to the stores that each goes to, the primary first. */
  readonly stores: Readonly<Record<string, readonly string[]>>;
}

/** Streams of the config, and those that only the twins know, by name. */
export function statusReport({ streams, twins }: Told, { cluster, stores }: Expected): StatusReport {
  const told = [...streams.map(({ name }) => name), ...twins.flatMap((twin) => twin.streams.map(({ name }) => name))];
  const names = new Set([...Object.keys(stores), ...told]);
  return {
    cluster,
    streams: [...names].sort().map((name) => {
      const { master = null, cursor = null, promotion } = streams.find((stream) => stream.name === name) ?? {};
      const seen = twins
        .flatMap(({ node, streams: all }) =>
          all.filter((stream) => stream.name === name).map((stream) => ({ node, ...stream })),
        )
        .sort((a, b) => (a.node < b.node ? -1 : 1));
      const lagBytes = largest(seen.map((twin) => twin.lagBytes));
      const lagSeconds = largest(seen.map((twin) => twin.lagSeconds));
      return {
        name,
        master,
        term: cursor?.term ?? 0,
        slot: cursor?.slot ?? 0,
        cursor: cursorStatus(cursor),
        lagBytes,
        lagSeconds,
        twins: seen.map(({ node, role, ready, reason, lagBytes: bytes }) => ({
          node,
          role,
          ready,
          reason,
          lagBytes: bytes,
        })),
        stores: storeStatus(primaryFirst(stores, name, promotion?.store), { lagBytes, lagSeconds }, seen),
      };
    }),
  };
}

function primaryFirst(stores: Expected['stores'], stream: string, promoted: string | undefined): readonly string[] {
  const planned = Object.hasOwn(stores, stream) ? stores[stream]! : [];
  return promoted === undefined ? planned : [promoted, ...planned.slice(1).filter((name) => name !== promoted)];
}

/** The primary lags as the stream does; of the copies their maker tells, and without one nobody. */
function storeStatus(
  [primary, ...copies]: readonly string[],
  lag: { readonly lagBytes: number | null; readonly lagSeconds: number | null },
  seen: readonly Omit<ToldStream, 'name'>[],
): StoreStatus[] {
  const told = seen.find(({ role, stores }) => role === 'master' && stores !== undefined)?.stores;
  const unknown = (name: string) => ({ name, lagBytes: null, lagSeconds: null });
  return primary === undefined ? [] : [{ name: primary, ...lag }, ...(told ?? copies.map(unknown))];
}

function cursorStatus(cursor: ToldCursor | null): StreamStatus['cursor'] {
  if (!cursor?.position) return null;
  const { id, segment, offset } = cursor.position;
  return { id, segment, offset, time: cursor.time };
}

function largest(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null);
  return known.length > 0 ? Math.max(...known) : null;
}
