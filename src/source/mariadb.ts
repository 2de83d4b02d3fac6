import type { Log } from '../core/log.ts';
import type { Position } from '../core/position.ts';
import { abortReason } from '../errors.ts';
import { Binlogs, type Lineage } from './mariadb/binlogs.ts';
import { EndFinder } from './mariadb/end.ts';
import type { Flavour } from './mariadb/gtid.ts';
import { inspectBinlogs } from './mariadb/inspect.ts';
import { inspectServer } from './mariadb/inspect-server.ts';
import { locate } from './mariadb/locate.ts';
import { LogReader } from './mariadb/reader.ts';
import { ReplicaDuty } from './mariadb/replica-duty.ts';
import type { Segment } from './mariadb/segment.ts';
import type { Backlog, LogSource } from './source.ts';
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
  const ending = new EndFinder({ binlogs, flavour, maxSliceBytes });

  /** Descriptors are held from what is not yet shipped: from the position's file, or from the oldest. */
  const holdFrom = async (current: Lineage, position: Position | null) => {
    const first = (position && (await sameLife(current, position))) ?? current.segments[0];
    if (first) await current.holdFrom(first);
    return first;
  };

  const measureFrom = async (from: Position | null) => {
    const current = await binlogs.look();
    const first = await holdFrom(current, from);
    return first ? measureBacklog(current, first, from?.segment === first.name ? from.offset : 0) : NOTHING;
  };

  return {
    async identity() {
      const newest = await (await binlogs.look()).newestUsable();
      return { type: flavour, name: newest && `server-${newest.header.serverId}` };
    },

    async locate(head) {
      const located = await locate(await binlogs.look(), head);
      const lacking = located.allowed ? await duty?.lacking() : null;
      return lacking ? { ...located, allowed: false, reason: lacking } : located;
    },

    async *read(from, signal) {
      if (signal.aborted) throw abortReason(signal);
      const tailer = openTailer({ busyPollMs, log });
      try {
        const reader = new LogReader({ stream, binlogs, tailer, flavour, maxSliceBytes, log }, signal);
        yield* reader.read(from);
      } finally {
        await tailer.close();
      }
    },

    end: () => ending.end(),

    backlog: measureFrom,

    async acknowledge(upTo) {
      await holdFrom(binlogs.current, upTo);
    },

    async inspect(from) {
      const findings = await inspectBinlogs(binlogs);
      if (url === undefined) return findings;
      const backlog = from === undefined ? null : await measureFrom(from).catch(() => null);
      return [...findings, ...(await inspectServer({ url, flavour, backlog }))];
    },

    heldBytes: () => binlogs.current.heldBytes,

    close: () => binlogs.close(),
  };
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
