/** A segment of a fake log. The links stand for held descriptors: a reader goes on through what was purged. */
export interface FakeSegment {
  readonly name: string;
  readonly number: number;
  readonly incarnation: string;
  /** The ID at the segment's start. */
  readonly startId: string;
  bytes: Buffer;
  /** Transaction boundaries in order, each with the ID and the time of what ends there. */
  boundaries: { offset: number; id: string; ms: number }[];
  next: FakeSegment | null;
}

const FIRST_MS = Date.UTC(2026, 0, 1);

/**
 * A database's log in memory, as the disk holds it. Twins' sources open the same one (`openFakeSource`). The log goes
 * on differently after bytes are lost: an ID may come again, its bytes never do.
 */
export class FakeLog {
  readonly origin: string;
  /** What the index lists, oldest first. */
  segments: FakeSegment[] = [];
  #transactions = 0;
  #writes = 0;
  #lives = 0;
  #waiting = new Set<() => void>();

  constructor({ origin = 'fake-1' }: { origin?: string } = {}) {
    this.origin = origin;
  }

  /** Commits one transaction of `bytes` bytes; the first one creates the first segment. */
  append({ bytes = 100 }: { bytes?: number } = {}): void {
    if (this.segments.length === 0) this.#open();
    this.#transactions++;
    this.#write(bytes);
  }

  /** Ends the newest segment and starts the next. */
  rotate(): void {
    this.#open();
    this.#changed();
  }

  /** A crash: the log loses its last `bytes` bytes (within the newest segment or further back), and goes on in a new segment. */
  truncate(bytes: number): void {
    this.rollBack(this.sizeBytes - bytes);
  }

  /** Puts the log back to its first `sizeBytes` bytes, and goes on in a new segment. */
  rollBack(sizeBytes: number): void {
    const kept: FakeSegment[] = [];
    let keptBytes = 0;
    for (const segment of this.segments) {
      if (kept.length > 0 && keptBytes >= sizeBytes) break;
      kept.push(segment);
      keptBytes += segment.bytes.length;
    }
    this.segments = kept;
    const last = kept.at(-1)!;
    const size = last.bytes.length - Math.max(0, keptBytes - sizeBytes);
    last.bytes = last.bytes.subarray(0, size);
    last.boundaries = last.boundaries.filter(({ offset }) => offset <= size);
    this.#transactions = Number((last.boundaries.at(-1)?.id ?? last.startId).split('-')[2] ?? 0);
    this.rotate();
  }

  get sizeBytes(): number {
    return this.segments.reduce((sum, { bytes }) => sum + bytes.length, 0);
  }

  /** RESET MASTER: everything goes, the names start again. */
  reset(): void {
    this.segments = [];
    this.#transactions = 0;
    this.#open();
    this.#changed();
  }

  /** Drops the oldest segments but `keep`. */
  purge(keep = 1): void {
    this.segments = this.segments.slice(-keep);
    this.#changed();
  }

  /** Every listed segment's bytes by its name. */
  contents(): Map<string, Buffer> {
    return new Map(this.segments.map(({ name, bytes }) => [name, Buffer.from(bytes)]));
  }

  /** Resolves at the next change, or when the signal aborts. */
  changed(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        this.#waiting.delete(done);
        signal.removeEventListener('abort', done);
        resolve();
      };
      this.#waiting.add(done);
      signal.addEventListener('abort', done);
      if (signal.aborted) done();
    });
  }

  get #id(): string {
    return this.#transactions === 0 ? '' : `0-1-${this.#transactions}`;
  }

  #open(): void {
    const before = this.segments.at(-1);
    const number = (before?.number ?? 0) + 1;
    if (!before) this.#lives++;
    const incarnation = `life${this.#lives}-${++this.#writes}`;
    const segment: FakeSegment = {
      name: `log.${String(number).padStart(6, '0')}`,
      number,
      incarnation,
      startId: this.#id,
      bytes: Buffer.alloc(0),
      boundaries: [],
      next: null,
    };
    if (before) before.next = segment;
    this.segments.push(segment);
    this.#write(40);
  }

  #write(length: number): void {
    const segment = this.segments.at(-1)!;
    this.#writes++;
    const line = `${segment.name} ${segment.incarnation} ${this.#id} write ${this.#writes}\n`;
    segment.bytes = Buffer.concat([segment.bytes, Buffer.alloc(length, line)]);
    segment.boundaries.push({ offset: segment.bytes.length, id: this.#id, ms: FIRST_MS + this.#writes * 1000 });
    this.#changed();
  }

  #changed(): void {
    for (const done of [...this.#waiting]) done();
  }
}
