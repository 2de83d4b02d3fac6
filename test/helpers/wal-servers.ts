import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { lsnText } from '../../src/source/postgres/lsn.ts';
import type { Server, ServerState, Slot } from '../../src/source/postgres/server-state.ts';
import { earlier } from '../../src/source/postgres/timelines.ts';
import { openPostgresSource, type PostgresSourceOptions } from '../../src/source/postgres.ts';
import type { LogSource } from '../../src/source/source.ts';
import { Wal } from './wal.ts';

const log = { debug() {}, info() {}, warn() {}, error() {} };

/** Of all servers: each commit comes later than the one before. */
let clockMs = Date.UTC(2026, 0, 1);

/** The first record on a new timeline; its time tells two promotions at one place apart. */
const END_OF_RECOVERY = 0x90;

function now(): Buffer {
  clockMs += 1234;
  const bytes = Buffer.alloc(16);
  bytes.writeBigInt64LE(BigInt(clockMs) * 1000n);
  return bytes;
}

/** A timeline of a made-up cluster: its WAL, and whose child it is. */
export interface Line {
  readonly wal: Wal;
  readonly parent: Line | null;
  /** Where it left its parent. */
  readonly begin: bigint;
  readonly history: string | null;
  /** Ends of records: recovery, and so a promotion, ends with one. */
  readonly ends: bigint[];
}

export interface WalServerOptions {
  readonly segmentBytes?: number;
}

/**
 * A PostgreSQL server as a source sees it: a data directory with real pages and records, and its answers. Standbys, their
 * promotions and rewinds are made of the same WAL, as in a cluster.
 */
export class WalServer implements Server {
  readonly dir = mkdtempSync(join(tmpdir(), 'shipmate-wal-'));
  isInRecovery = false;
  /** What it says to have flushed. */
  flushed: bigint;
  /** What `ask` throws, if anything. */
  failure: Error | null = null;
  /** Whether it is the server that writes its timeline's WAL, or follows one that does. */
  line: Line;
  /** Where its slot stands; null: it has none. */
  slotAt: bigint | null = null;
  known: ServerState | null = null;
  readonly #written = new Map<string, Buffer>();
  #removedBefore = 0n;
  #lives = 1;

  constructor(line: Line, flushed: bigint) {
    this.line = line;
    this.flushed = flushed;
    mkdirSync(join(this.dir, 'pg_wal', 'archive_status'), { recursive: true });
    this.#write();
  }

  static primary({ segmentBytes = 1 << 20 }: WalServerOptions = {}): WalServer {
    const wal = new Wal({ segmentBytes });
    const server = new WalServer({ wal, parent: null, begin: 0n, history: null, ends: [wal.end] }, wal.end);
    server.transaction();
    return server;
  }

  get segmentBytes(): number {
    return this.line.wal.segmentBytes;
  }

  /** Commits a transaction that takes at least so many bytes; returns its LSN. */
  transaction({ bytes = 100 } = {}): bigint {
    const { wal } = this.line;
    for (let left = bytes; left > 0; left -= 50_000) wal.change(Math.min(left, 50_000));
    clockMs += 1234;
    wal.commit(clockMs);
    return this.flush();
  }

  /** A record without a time, as an idle server writes them. */
  idle(): bigint {
    this.line.wal.change();
    return this.flush();
  }

  /** Ends the segment. */
  switchLog(): void {
    const { wal } = this.line;
    wal.switch();
    this.flushed = wal.end - (wal.end % BigInt(wal.segmentBytes));
    this.line.ends.push(this.flushed);
    this.#write();
  }

  flush(): bigint {
    this.flushed = this.line.wal.end;
    this.line.ends.push(this.flushed);
    this.#write();
    return this.flushed;
  }

  /** A standby that has all of this server's WAL, or what is before `upTo`. */
  standby(upTo = this.flushed): WalServer {
    const standby = new WalServer(this.line, upTo);
    standby.isInRecovery = true;
    return standby;
  }

  /** Receives what the primary has, and follows it to its timeline. */
  receive(from: WalServer, upTo = from.flushed): void {
    this.line = from.line;
    this.flushed = upTo;
    this.#write();
  }

  /** Becomes a primary on a timeline of its own, which begins with its last whole record. */
  promote(timeline = this.line.wal.timeline + 1): void {
    const parent = this.line;
    const begin = parent.ends.findLast((end) => end <= this.flushed)!;
    const history = `${parent.wal.timeline}\t${lsnText(begin)}\tno recovery target specified\n`;
    const before = parent.history === null ? '' : `${parent.history}\n`;
    const wal = parent.wal.branch(timeline, begin);
    this.line = { wal, parent, begin, history: before + history, ends: [begin] };
    this.isInRecovery = false;
    wal.record({ manager: 0, info: END_OF_RECOVERY, main: now() });
    this.flush();
  }

  /** Made a standby of another server, as by pg_rewind or from a base backup: nothing of its own is left. */
  rewind(to: WalServer, upTo = to.flushed): void {
    for (const name of this.segments()) rmSync(this.path(name));
    for (const name of this.#written.keys()) rmSync(this.path(name), { force: true });
    this.#written.clear();
    this.#removedBefore = 0n;
    this.isInRecovery = true;
    this.slotAt = null;
    this.#lives++;
    this.receive(to, upTo);
  }

  /** Removes segments that a server would; `byForce`: though the slot holds them. */
  purge({ byForce = false } = {}): void {
    const newest = this.flushed - (this.flushed % BigInt(this.segmentBytes));
    const held = byForce || this.slotAt === null || this.slotAt > newest ? newest : this.slotAt;
    this.#removedBefore = held - (held % BigInt(this.segmentBytes));
    for (const [name, { start }] of this.#files())
      if (start < this.#removedBefore) rmSync(this.path(name), { force: true });
  }

  /** Whether WAL was removed since its data directory was made. */
  get hasRemoved(): boolean {
    return this.#removedBefore > 0n;
  }

  segments(): string[] {
    return readdirSync(join(this.dir, 'pg_wal')).filter((name) => /^[0-9A-F]{24}$/.test(name));
  }

  path(name: string): string {
    return join(this.dir, 'pg_wal', name);
  }

  /** The segments of its timeline as they are to be shipped. */
  contents(): Map<string, Buffer> {
    const present = new Set(this.segments());
    const files = [...this.#files()].filter(([name]) => present.has(name));
    return new Map(files.map(([name, { bytes }]) => [name, bytes]));
  }

  open(options: Partial<PostgresSourceOptions> = {}): LogSource {
    const slot: Slot = {
      advance: async (upTo) => {
        this.slotAt = this.slotAt !== null && this.slotAt > upTo ? this.slotAt : upTo;
      },
      hold: async () => {
        this.slotAt ??= 0n;
      },
    };
    return openPostgresSource({ stream: 'orders', dir: this.dir, server: this, slot, busyPollMs: 5, log, ...options });
  }

  async ask(): Promise<ServerState> {
    if (this.failure) throw this.failure;
    this.known = {
      systemId: this.line.wal.systemId.toString(),
      walSegmentBytes: this.segmentBytes,
      life: String(this.#lives),
      isInRecovery: this.isInRecovery,
      timeline: this.line.wal.timeline,
      flushed: this.flushed,
      replayed: this.isInRecovery ? this.flushed : null,
      isStreaming: this.isInRecovery,
    };
    return this.known;
  }

  async close(): Promise<void> {}

  remove(): void {
    rmSync(this.dir, { recursive: true, force: true });
  }

  /** The timelines of its history, oldest first, and up to where it has each. */
  lines(): { line: Line; end: bigint }[] {
    const lines: { line: Line; end: bigint }[] = [];
    for (let [line, end] = [this.line as Line | null, this.flushed]; line !== null; ) {
      lines.unshift({ line, end });
      [end, line] = [earlier(line.begin, end), line.parent];
    }
    return lines;
  }

  /** Segments of its own timeline and of those before it, up to what is flushed. */
  *#files(): Iterable<[string, { start: bigint; bytes: Buffer }]> {
    for (const { line, end } of this.lines()) {
      const { wal } = line;
      const all = wal.bytes();
      for (let start = wal.start; start < end; start += BigInt(wal.segmentBytes)) {
        const from = Number(start - wal.start);
        const length = Number(earlier(end - start, BigInt(wal.segmentBytes)));
        yield [wal.nameAt(start), { start, bytes: all.subarray(from, from + length) }];
      }
    }
  }

  #write(): void {
    for (let line: Line | null = this.line; line !== null; line = line.parent) {
      if (line.history === null) continue;
      const name = `${line.wal.timeline.toString(16).toUpperCase().padStart(8, '0')}.history`;
      this.#put(name, Buffer.from(line.history));
    }
    for (const [name, { start, bytes }] of this.#files()) {
      if (start < this.#removedBefore) continue;
      this.#put(name, Buffer.concat([bytes, Buffer.alloc(this.segmentBytes - bytes.length)]));
    }
  }

  #put(name: string, bytes: Buffer): void {
    if (this.#written.get(name)?.equals(bytes)) return;
    this.#written.set(name, bytes);
    // In place, as a server does: the file stays the same one.
    writeFileSync(this.path(name), bytes, { flag: existsSync(this.path(name)) ? 'r+' : 'w' });
  }
}
