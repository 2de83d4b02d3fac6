import type { Log } from '../core/log.ts';
import { type Position, samePlace } from '../core/position.ts';
import { abortReason, ShipmateError } from '../errors.ts';
import { BacklogMeter } from './postgres/backlog.ts';
import { Branches } from './postgres/branches.ts';
import { readControlFile } from './postgres/control-file.ts';
import { noWal, otherHistory } from './postgres/errors.ts';
import { locate } from './postgres/locate.ts';
import { beginningOf, type OwnLog, readableEnd } from './postgres/own-log.ts';
import { PgWal } from './postgres/pg-wal.ts';
import { WalReader } from './postgres/reader.ts';
import { Sameness } from './postgres/sameness.ts';
import type { Server, Slot } from './postgres/server-state.ts';
import { Tail } from './postgres/tail.ts';
import { earlier } from './postgres/timelines.ts';
import { segmentStartAt } from './postgres/wal-name.ts';
import type { Finding, Head, Located, LogSource, Retention } from './source.ts';
import { openTailer } from './tailer.ts';

export interface PostgresSourceOptions {
  /** The stream's name, for messages. */
  readonly stream: string;
  /** The data directory. */
  readonly dir: string;
  /** Closed with the source. */
  readonly server: Server;
  /** Null: nothing keeps WAL that is not shipped. */
  readonly slot: Slot | null;
  /** What `check` says; `from`: where this twin would go on. */
  readonly inspect?: (from?: Position) => Promise<Finding[]>;
  /** What the slot may hold. */
  readonly retention?: () => Promise<Retention>;
  /** How often to ask while the server is busy. */
  readonly busyPollMs: number;
  /** The longest slice; 1 MiB by default. */
  readonly maxSliceBytes?: number;
  readonly log: Log;
}

const DEFAULT_SLICE_BYTES = 1 << 20;
const SETTLE_MS = 10;
/** What speaks against a take-over counts when it was found twice, the second time by an answer to a later question. */
const MAX_LOOKS = 4;

/** The WAL of a PostgreSQL server, primary or standby, read from its data directory. Opens nothing before it is asked. */
export function openPostgresSource(options: PostgresSourceOptions): LogSource {
  const { stream, dir, server, slot, inspect, retention, busyPollMs, log } = options;
  const maxSliceBytes = options.maxSliceBytes ?? DEFAULT_SLICE_BYTES;
  const settleMs = Math.min(SETTLE_MS, busyPollMs / 2);
  const wal = new PgWal(dir);
  const memory = { sameness: new Sameness(), branches: new Branches() };
  const meter = new BacklogMeter();
  const tail = new Tail();
  let known: OwnLog | null = null;

  /** The server's own word and files, of a moment after the call. */
  const look = async (): Promise<OwnLog> => {
    const state = await server.ask();
    if (state.life !== known?.state.life) memory.sameness.forget();
    const { systemId, walSegmentBytes: segmentBytes } = state;
    known = { state, descent: await wal.descentOf({ systemId, segmentBytes }, state.timeline), wal };
    return known;
  };

  const locateTwice = async (head: Head | null): Promise<Located> => {
    let before = await locate(await look(), head, memory);
    for (let looks = 1; isQuestionable(before); looks++) {
      const located = await locate(await look(), head, memory);
      if (isSameAnswer(located, before)) return located;
      if (looks === MAX_LOOKS) return { ...located, allowed: false };
      before = located;
    }
    return before;
  };

  /** Lets the server remove what is before a position, if that is in its history. */
  const keepFrom = async (position: Position) => {
    const own = known?.descent.find(position) ? known : await look();
    const timeline = own.descent.find(position);
    if (!timeline) return;
    // A child's first segment is shipped whole; and what is beyond our end now may be on another timeline soon.
    const lsn = earlier(own.descent.lsnOf(position), readableEnd(own, timeline));
    // The last bytes before it stay too: they show at the next start that this is the log which was shipped.
    await slot?.advance(segmentStartAt(lsn, own.state.walSegmentBytes) === lsn ? lsn - 1n : lsn);
  };

  return {
    async identity() {
      // A daemon that starts while its server is down knows it too.
      return { type: 'postgres', name: (await readControlFile(dir)).systemId };
    },

    async locate(head) {
      try {
        return await locateTwice(head);
      } catch (error) {
        if (!(error instanceof ShipmateError) || error.code !== 'SERVER_UNREACHABLE') throw error;
        return { result: 'behind', at: null, allowed: false, reason: error.message, evidence: {} };
      }
    },

    async *read(from, signal) {
      if (signal.aborted) throw abortReason(signal);
      // The kernel tells each write to a file in the directory; to watch the files themselves too is not needed.
      const tailer = openTailer({ busyPollMs, match: () => false, log });
      try {
        tailer.follow([wal.dir]);
        // Where it stands is moved by what is acknowledged alone: what is read from here on may lie further.
        await slot?.hold();
        const start = from ?? (await beginning(await look()));
        yield* new WalReader(start, { stream, look, tailer, tail, maxSliceBytes, settleMs }, signal).read();
      } finally {
        await tailer.close();
      }
    },

    async end() {
      const { descent, state } = await look();
      return descent.positionAfter(descent.newest, state.flushed);
    },

    async backlog(from) {
      const own = await look();
      const position = from ?? (await beginning(own));
      const timeline = own.descent.find(position);
      if (!timeline) throw otherHistory(position.id);
      return meter.measure(own, timeline, position);
    },

    acknowledge: keepFrom,

    inspect: async (from) => (inspect ? inspect(from) : []),

    ...(retention && { retention }),

    close: () => server.close(),
  };
}

/** What speaks against a take-over, though a later answer of the server may have spoken for it. */
const isQuestionable = ({ result }: Located) => result === 'fork' || result === 'gap';

function isSameAnswer(a: Located, b: Located): boolean {
  const isSamePlace = a.at === null ? b.at === null : b.at !== null && samePlace(a.at, b.at);
  return a.result === b.result && a.allowed === b.allowed && isSamePlace;
}

async function beginning(own: OwnLog): Promise<Position> {
  const position = await beginningOf(own);
  if (!position) throw noWal(own.wal.dir);
  return position;
}
