import { setTimeout as delay } from 'node:timers/promises';
import type { Position } from '../../core/position.ts';
import { abortReason, Discontinuity } from '../../errors.ts';
import type { LogSlice } from '../source.ts';
import type { Tailer } from '../tailer.ts';
import { corrupt } from './errors.ts';
import { lsnText } from './lsn.ts';
import { type OwnLog, readableEnd } from './own-log.ts';
import { PageChecker } from './pages.ts';
import type { SegmentFile } from './pg-wal.ts';
import type { Tail } from './tail.ts';
import { earlier, isInHistory, type Timeline, tell } from './timelines.ts';
import { DEFAULT_PAGE_BYTES } from './wal-page.ts';
import { WalScanner } from './wal-records.ts';

export interface ReaderOptions {
  readonly stream: string;
  /** Asks the server, and looks at its history. */
  readonly look: () => Promise<OwnLog>;
  readonly tailer: Tailer;
  /** Of what was read before, by whichever reader. */
  readonly tail: Tail;
  readonly maxSliceBytes: number;
  /** From a hint of a write to the question whether it is flushed: asked at once, the server would have to say no. */
  readonly settleMs: number;
}

interface OpenSegment {
  readonly name: string;
  readonly file: SegmentFile;
  readonly pages: PageChecker;
}

const PAGE_BYTES = DEFAULT_PAGE_BYTES;
const HINT =
  'its replication slot keeps WAL that is not shipped yet: see that it exists, and what max_slot_wal_keep_size allows';

/**
 * Follows the WAL of one timeline from a position on, up to what the server says to be flushed; first the timeline's
 * history file, where the position lies in it. Ends with Discontinuity where the timeline does.
 */
export class WalReader {
  readonly #options: ReaderOptions;
  readonly #signal: AbortSignal;
  /** Whole pages, from the one on in which the slice begins. */
  readonly #buffer: Buffer;
  readonly #scanner: WalScanner;
  #scannedTo: bigint | null = null;
  /** Of the slice that is made now. */
  #firstMicros: number | null = null;
  #lastMicros: number | null = null;
  #sliceStart = 0n;
  #segment: OpenSegment | null = null;
  #at: Position;
  #life: string | null = null;

  constructor(from: Position, options: ReaderOptions, signal: AbortSignal) {
    this.#at = from;
    this.#options = options;
    this.#signal = signal;
    this.#buffer = Buffer.allocUnsafeSlow(options.maxSliceBytes + PAGE_BYTES);
    this.#scanner = new WalScanner(({ micros, end }) => {
      if (end <= this.#sliceStart) return;
      this.#firstMicros ??= micros;
      this.#lastMicros = micros;
    });
  }

  async *read(): AsyncGenerator<LogSlice, never> {
    const { tailer, look, settleMs } = this.#options;
    try {
      for (;;) {
        this.#signal.throwIfAborted();
        const mark = tailer.mark();
        const own = await look();
        const timeline = own.descent.find(this.#at);
        if (!timeline) throw this.#discontinuity(`the server is on ${pathOf(own)} now`);
        await this.#demandSame(own);
        if (isInHistory(this.#at)) yield* this.#history(timeline);
        yield* this.#upTo(own, timeline, readableEnd(own, timeline));
        this.#demandMore(own, timeline);
        await tailer.changed(mark, this.#signal);
        await delay(settleMs, undefined, { signal: this.#signal });
      }
    } catch (error) {
      throw this.#signal.aborted ? abortReason(this.#signal) : error;
    } finally {
      await this.#leave();
    }
  }

  /** A server that was started since it was read may be another one in the same directory. */
  async #demandSame({ state: { life }, wal }: OwnLog): Promise<void> {
    if (life === this.#life) return;
    if (!(await this.#options.tail.isHere(wal, this.#at))) {
      throw this.#discontinuity('other bytes are in the place of those that were read before');
    }
    await this.#leave();
    this.#life = life;
  }

  /** The rest of the history file. */
  async *#history({ history }: Timeline): AsyncGenerator<LogSlice> {
    const from = this.#at;
    const bytes = history!.subarray(from.offset);
    if (bytes.length === 0) return;
    this.#at = { ...from, offset: history!.length };
    yield { from, to: this.#at, bytes, boundary: true, endsSegment: true, firstEventMs: null, lastEventMs: null };
  }

  async *#upTo(own: OwnLog, timeline: Timeline, end: bigint): AsyncGenerator<LogSlice> {
    for (let lsn = own.descent.lsnOf(this.#at); lsn < end; lsn = own.descent.lsnOf(this.#at)) {
      this.#signal.throwIfAborted();
      const slice = await this.#slice(own, timeline, lsn, end);
      if (!slice) return;
      this.#at = slice.to;
      this.#options.tail.set(slice);
      yield slice;
    }
  }

  /** From an LSN that is before `end`; null where only the beginning of a page's header is there. */
  async #slice(own: OwnLog, timeline: Timeline, lsn: bigint, end: bigint): Promise<LogSlice | null> {
    const { descent } = own;
    const { segmentBytes } = descent.cluster;
    const from = descent.position(timeline, lsn);
    const { file, pages } = await this.#enter(own, from, lsn);
    const pageAt = from.offset - (from.offset % PAGE_BYTES);
    const start = from.offset - pageAt;
    const available = Number(earlier(end - lsn, BigInt(segmentBytes - from.offset)));
    const wanted = this.#endOfSlice(from.offset, available) - pageAt;
    const read = await file.read(this.#buffer, wanted, pageAt);
    if (!(await file.isInPlace())) throw this.#discontinuity(`${from.segment} was removed while it was read`, HINT);
    if (read < wanted) throw corrupt(file.path, pageAt + read, 'it ends there, but the server has flushed more');
    const whole = await pages.check(this.#buffer.subarray(0, wanted), pageAt);
    if (whole <= start) return null;
    const bytes = this.#buffer.subarray(start, whole);
    const endsSegment = pageAt + whole === segmentBytes;
    const to = descent.positionAfter(timeline, lsn + BigInt(bytes.length));
    const times = this.#times(lsn, start, whole);
    this.#demandRecords(file, segmentBytes);
    return { from, to, bytes, boundary: true, endsSegment, ...times };
  }

  /** As much as there is; what does not fit is left over from a page's start on. */
  #endOfSlice(offset: number, available: number): number {
    const { maxSliceBytes } = this.#options;
    if (available <= maxSliceBytes) return offset + available;
    const end = offset + maxSliceBytes;
    const pageStart = end - (end % PAGE_BYTES);
    return pageStart > offset ? pageStart : end;
  }

  /** Times of the commits that end in the buffer's bytes from `start` on, which are those from the LSN on. */
  #times(lsn: bigint, start: number, end: number): Pick<LogSlice, 'firstEventMs' | 'lastEventMs'> {
    this.#firstMicros = this.#lastMicros = null;
    this.#sliceStart = lsn;
    // Begun inside a page, records are found from the page's header on.
    const from = this.#scannedTo === lsn ? start : 0;
    this.#scanner.feed(lsn - BigInt(start - from), this.#buffer.subarray(from, end));
    this.#scannedTo = lsn + BigInt(end - start);
    return {
      firstEventMs: this.#firstMicros === null ? null : Math.floor(this.#firstMicros / 1000),
      lastEventMs: this.#lastMicros === null ? null : Math.ceil(this.#lastMicros / 1000),
    };
  }

  /** A file that was put in the place of the server's own may lack what that had. */
  #demandRecords({ path }: SegmentFile, segmentBytes: number): void {
    const { blankAt } = this.#scanner;
    if (blankAt === null) return;
    throw corrupt(
      path,
      Number(blankAt % BigInt(segmentBytes)),
      'there are zeros where the server has flushed a record',
    );
  }

  /** The segment of a position, open. */
  async #enter({ wal, descent }: OwnLog, { segment: name, offset }: Position, lsn: bigint): Promise<OpenSegment> {
    if (this.#segment?.name === name) return this.#segment;
    await this.#leave();
    const file = await wal.open(name);
    if (!file) throw this.#discontinuity(`${name} is gone`, HINT);
    this.#segment = { name, file, pages: new PageChecker(file, descent, lsn - BigInt(offset)) };
    return this.#segment;
  }

  async #leave(): Promise<void> {
    await this.#segment?.file.close();
    this.#segment = null;
  }

  /** Whether the timeline may still get more; where it may not, the next term begins with its child. */
  #demandMore({ state, descent }: OwnLog, timeline: Timeline): void {
    const end = descent.lsnOf(this.#at);
    const last = descent.lastSegmentOf(timeline);
    if (last !== null && end >= last) {
      const child = descent.childOf(timeline)!;
      throw this.#discontinuity(`${tell(child, timeline)}, goes on from there`);
    }
    if (last === null && end > state.flushed && !state.isInRecovery) {
      throw this.#discontinuity(`the WAL of this primary ends at ${lsnText(state.flushed)}`);
    }
  }

  #discontinuity(what: string, hint?: string): Discontinuity {
    const { stream } = this.#options;
    return new Discontinuity(`stream ${stream}: the WAL does not go on from ${this.#at.id}: ${what}`, hint);
  }
}

const pathOf = ({ descent }: OwnLog) => tell(descent.newest, descent.parentOf(descent.newest));
