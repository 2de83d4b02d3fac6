import type { Log } from '../core/log.ts';
import type { Position } from '../core/position.ts';
import { abortReason, Discontinuity } from '../errors.ts';
import { Binlogs, type Lineage } from './mariadb/binlogs.ts';
import { errantBeyond } from './mariadb/errant.ts';
import { Branches } from './mariadb/fork.ts';
import { type Flavour, gtidStateFor, isPlace } from './mariadb/gtid.ts';
import { inspectBinlogs, newestOf } from './mariadb/inspect.ts';
import { askRetention, inspectServer } from './mariadb/inspect-server.ts';
import { locate } from './mariadb/locate.ts';
import { LogIndex } from './mariadb/log-index.ts';
import type { OwnLog } from './mariadb/pair.ts';
import { LogReader } from './mariadb/reader.ts';
import { ReplicaDuty } from './mariadb/replica-duty.ts';
import type { Segment } from './mariadb/segment.ts';
import { mayBeReplica, Server, type ServerState } from './mariadb/server.ts';
import type { Backlog, Head, Located, LogSlice, LogSource } from './source.ts';
import { openTailer } from './tailer.ts';

export interface MariadbSourceOptions {
  /** The stream's name, for messages. */
  readonly stream: string;
  /** The directory that holds the binlogs and their index. */
  readonly dir: string;
  /** The index file, absolute or relative to `dir`; found there by default. */
  readonly index?: string;
  /** `mariadb://user@host:3306`, `mariadb://user@localhost/?socket=/run/mysqld/mysqld.sock`: for what only SQL knows. */
  readonly url?: string;
  readonly flavour: Flavour;
  /** How often to look for new bytes while the log is busy. */
  readonly busyPollMs: number;
  /** The longest slice; 1 MiB by default. */
  readonly maxSliceBytes?: number;
  readonly log: Log;
}

/** A source with what binlogs alone have to tell. */
export interface MariadbSource extends LogSource {
  /** Disk space of purged binlogs that only our descriptors keep, until their bytes are acknowledged. */
  heldBytes(): number;
}

const DEFAULT_SLICE_BYTES = 1 << 20;

/** The binlogs of a MariaDB or MySQL server, read from its directory. Opens nothing before it is asked. */
export function openMariadbSource(options: MariadbSourceOptions): MariadbSource {
  const { stream, dir, index, url, flavour, busyPollMs, log } = options;
  const maxSliceBytes = options.maxSliceBytes ?? DEFAULT_SLICE_BYTES;
  const binlogs = new Binlogs({ dir, index, flavour });
  const duty = url === undefined ? null : new ReplicaDuty({ url, flavour, log });
  const server = url === undefined ? null : new Server({ url, flavour, log });
  const logIndex = new LogIndex(flavour);
  const branches = new Branches();

  /** The log, with what the server at `url:` says, if it is the one that writes these binlogs. */
  const ownLog = async (lineage: Lineage, state: ServerState | null, { patient = false } = {}): Promise<OwnLog> => {
    const newest = await lineage.newestUsable();
    const ofThis = (told: ServerState | null) => (told?.serverId === newest?.header.serverId ? told : null);
    const askServer = async () => ofThis((await server?.ask({ patient })) ?? null);
    const lastKnown = ofThis(server?.lastKnown ?? null);
    const isSilent = server?.isSilent ?? false;
    return { lineage, index: logIndex, flavour, server: ofThis(state), lastKnown, isSilent, askServer };
  };

  /** Before a slice of a replica's log is handed out: what was written on it must not become part of the archive. */
  const demandReplicated = async ({ from, to }: LogSlice) => {
    if (server === null || !mayBeReplica(server)) return;
    const errant = await errantBeyond(await ownLog(binlogs.current, server.lastKnown, { patient: true }), from.id);
    if (errant === null) return;
    throw new Discontinuity(
      `stream ${stream}: ${to.segment}: ${errant}`,
      'find out who writes on the replica, and set read_only',
    );
  };

  /** A log without a past is begun anew only where the server says now that it is no replica that was made anew. */
  const withoutDoubt = async (located: Located, own: OwnLog, head: Head | null): Promise<Located> => {
    if (located.result !== 'reset' || server === null) return located;
    const asked = await own.askServer();
    if (asked !== null) return locate({ ...own, server: asked }, head, branches);
    return {
      ...located,
      allowed: false,
      reason: `${located.reason}, but the server does not say whether it replicates`,
    };
  };

  /** Where this log has the position: there, or in another server's log where its transactions end here. */
  const placeOf = async (current: Lineage, position: Position): Promise<Place | null> => {
    const segment = await sameLife(current, position);
    if (segment) return { segment, offset: position.offset };
    const newest = await current.newestUsable();
    if (newest?.header.origin === position.origin || isPlace(position.id)) return null;
    const beyond = await logIndex.beyond(current, gtidStateFor(flavour, position.id));
    return beyond && { segment: beyond.at.usable.segment, offset: beyond.at.offset, isEnd: beyond.kind === 'none' };
  };

  /** The position's file, or the oldest. */
  const startOf = async (current: Lineage, position: Position | null): Promise<Place | null> => {
    const [oldest] = current.segments;
    return (position && (await placeOf(current, position))) ?? (oldest ? { segment: oldest, offset: 0 } : null);
  };

  const measureFrom = async (from: Position | null) => {
    const current = await binlogs.look();
    const place = await startOf(current, from);
    if (place) await current.holdToo(place.segment);
    return place && !place.isEnd ? measureBacklog(current, place.segment, place.offset) : NOTHING;
  };

  return {
    async identity() {
      const newest = await (await binlogs.look()).newestUsable();
      return { type: flavour, name: newest && `server-${newest.header.serverId}` };
    },

    async locate(head) {
      const lineage = await binlogs.look();
      const own = await ownLog(lineage, (await server?.facts()) ?? null);
      const located = await withoutDoubt(await locate(own, head, branches), own, head);
      const lacking = located.allowed ? await duty?.lacking() : null;
      return lacking ? { ...located, allowed: false, reason: lacking } : located;
    },

    async *read(from, signal) {
      if (signal.aborted) throw abortReason(signal);
      const tailer = openTailer({ busyPollMs, log });
      const endPoll = server?.poll();
      try {
        await server?.ask({ patient: true });
        const reader = new LogReader({ stream, binlogs, tailer, flavour, maxSliceBytes, log }, signal);
        for await (const slice of reader.read(from)) {
          await demandReplicated(slice);
          yield slice;
        }
      } finally {
        endPoll?.();
        await tailer.close();
      }
    },

    async end() {
      const end = await logIndex.end(await binlogs.look());
      return end && logIndex.position(end);
    },

    backlog: measureFrom,

    async acknowledge(upTo) {
      const { current } = binlogs;
      const place = await startOf(current, upTo);
      if (place) await current.holdFrom(place.segment);
    },

    async inspect(from) {
      const findings = await inspectBinlogs(binlogs);
      if (url === undefined) return findings;
      const backlog = from === undefined ? null : await measureFrom(from).catch(() => null);
      return [...findings, ...(await inspectServer({ url, flavour, backlog, newest: () => newestOf(binlogs) }))];
    },

    ...(url !== undefined && { retention: () => askRetention(url, flavour) }),

    heldBytes: () => binlogs.current.heldBytes,

    async close() {
      await server?.close();
      await binlogs.close();
    },
  };
}

interface Place {
  readonly segment: Segment;
  readonly offset: number;
  /** Whether nothing but what was shipped is here, though it may end in other bytes. */
  readonly isEnd?: boolean;
}

const NOTHING: Backlog = { bytes: 0, oldestMs: null };

async function sameLife(lineage: Lineage, position: Position): Promise<Segment | undefined> {
  const segment = lineage.find(position);
  const header = segment && (await lineage.header(segment));
  return header?.incarnation === position.incarnation ? segment : undefined;
}

/** Bytes from an offset of a file to the end of the newest; only the newest file's size can still change. */
async function measureBacklog(lineage: Lineage, first: Segment, offset: number): Promise<Backlog> {
  await lineage.newest?.measure();
  const files = lineage.segments.slice(lineage.segments.indexOf(first));
  const bytes = files.reduce((sum, { size }) => sum + size, 0) - offset;
  if (bytes <= 0) return NOTHING;
  const oldestMs = offset < first.size ? await first.writtenMs(offset) : await files[1]!.writtenMs(0);
  return { bytes, oldestMs };
}
