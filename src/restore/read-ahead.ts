import { watch } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, stat, statfs, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { readArchive } from '../archive/identity.ts';
import { readPlace } from '../archive/walk.ts';
import { termOf, termsPrefix } from '../core/keys.ts';
import type { FilesByName } from '../source/source.ts';
import { FILES, isLive, liveDirectories, pidOf, type Recovery } from './ahead-files.ts';
import type { ChunkReader } from './chunks.ts';
import type { FoundFile } from './fetch-find.ts';
import { livingSegments, readRange } from './fetch-range.ts';
import { writeFound } from './fetch-write.ts';
import { isRunning } from './running.ts';

export interface ReadAheadOptions {
  /** Opens the archive, once it is clear that this process is to read it. */
  readonly open: () => Promise<ChunkReader>;
  readonly files: FilesByName;
  readonly recovery: Recovery;
  /** The segment that the recovery has already. */
  readonly after: string;
  readonly segmentBytes: number;
  /** Ends it. */
  readonly signal: AbortSignal;
}

const MOST_BYTES = 256 << 20;
/** Of the disk's free space: what recovery itself needs it for comes first. */
const SHARE_OF_FREE = 0.1;
const LEAST_SEGMENTS = 2;
/** Segments that are read at once: while one's last bytes are written, the next one's are on their way. */
const AT_ONCE = 2;
/** Segments whose headers are known ahead of those that are read. */
const KNOWN_AHEAD = 32;
const IDLE_MS = 60_000;
/** How long the archive may take something back before that is seen. */
const CHECK_MS = 5_000;
const TICK_MS = 1_000;

/**
 * Keeps the next segments of a recovery in its directory, each under its name once it is whole and proven; they are taken
 * from there by renaming. Ends, and removes the directory, when the signal says so, when the recovery is over or takes
 * none for a minute, when the config was changed, when the archive takes back what it had, and at any failure: then the
 * recovery's own requests meet what is wrong.
 */
export async function readAhead(options: ReadAheadOptions): Promise<void> {
  const directory = await enter(options.recovery);
  if (directory === null) return;
  const { files, after, segmentBytes } = options;
  try {
    // Whoever asks for it meanwhile waits, and starts no Node of its own.
    const expected = join(directory, files.next(after, segmentBytes) + FILES.part);
    await writeFile(expected, '', { mode: 0o600 });
    const chunks = await options.open();
    const { bavail, bsize } = await statfs(directory);
    const maxBytes = Math.min(MOST_BYTES, bavail * bsize * SHARE_OF_FREE);
    const maxSegments = Math.floor(maxBytes / segmentBytes);
    if (maxSegments >= LEAST_SEGMENTS) {
      await new Ahead({ ...options, chunks, expected }, { directory, maxSegments }).keep();
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** This process's directory; null where another process reads ahead for the same recovery. */
async function enter(recovery: Recovery): Promise<string | null> {
  const directory = `${recovery.path},${process.pid}`;
  const entrance = join(dirname(directory), `new-${process.pid}`);
  for (const left of [directory, entrance]) await rm(left, { recursive: true, force: true });
  await sweep(dirname(directory));
  await mkdir(entrance, { mode: 0o700 });
  await symlink(recovery.configFile, join(entrance, FILES.config));
  await writeFile(join(entrance, FILES.since), '');
  // Its files count from here on: it lives where they lie.
  process.chdir(entrance);
  await rename(entrance, directory);
  const others = (await liveDirectories(recovery)).filter((other) => other !== directory);
  if (others.every((other) => pidOf(other) > process.pid)) return directory;
  await rm(directory, { recursive: true, force: true });
  return null;
}

/** What processes left that did not end in order. */
async function sweep(root: string): Promise<void> {
  for (const name of await readdir(root)) {
    const path = join(root, name);
    const isLeft = name.includes(',') ? !(await isLive(path)) : !isRunning(pidOf(name));
    if (isLeft) await rm(path, { recursive: true, force: true });
  }
}

interface AheadOptions extends ReadAheadOptions {
  readonly chunks: ChunkReader;
  /** Stands for what is likely to be read first, until that is known. */
  readonly expected: string;
}

class Ahead {
  readonly #options: AheadOptions;
  readonly #directory: string;
  readonly #maxSegments: number;
  /** Found, not read yet. */
  #queue: FoundFile[] = [];
  readonly #reading = new Map<string, Promise<void>>();
  #finding: Promise<void> | null = null;
  /** Up to here the log is found. */
  #foundTo: string;
  /** When nothing was found behind that; null: it was not looked for, or something was found. */
  #atHeadMs: number | null = null;
  #asked: string;
  /** Whole, and not seen to be taken. */
  #held: readonly string[] = [];
  #movedMs = performance.now();
  #wake = Promise.withResolvers<void>();

  constructor(options: AheadOptions, { directory, maxSegments }: { directory: string; maxSegments: number }) {
    this.#options = options;
    this.#directory = directory;
    this.#maxSegments = maxSegments;
    this.#asked = options.after;
    this.#foundTo = options.files.span(options.after, options.segmentBytes).to;
  }

  /** Returns when nobody wants it any more; what hangs then is left behind. */
  async keep(): Promise<void> {
    const over = Promise.withResolvers<void>();
    const { signal, recovery } = this.#options;
    signal.addEventListener('abort', () => over.resolve(), { once: true });
    const isLed = recovery.session > 0 && isRunning(recovery.session);
    const timer = setInterval(() => {
      const isIdle = performance.now() - this.#movedMs > IDLE_MS;
      if (isIdle || (isLed && !isRunning(recovery.session))) over.resolve();
    }, TICK_MS);
    const watcher = watch(this.#directory, (event, name) => {
      // What is written grows in hundreds of steps.
      if (event === 'rename' || name === FILES.asked) this.#wake.resolve();
    });
    try {
      await Promise.race([over.promise, this.#readOn()]);
    } finally {
      watcher.close();
      clearInterval(timer);
    }
  }

  async #readOn(): Promise<void> {
    const isStill = await this.#watchForChanges();
    let checkedMs = performance.now();
    for (;;) {
      if (performance.now() - checkedMs > CHECK_MS) {
        if (!(await isStill())) return;
        checkedMs = performance.now();
      }
      this.#wake = Promise.withResolvers();
      await this.#look();
      this.#fill();
      const tick = delay(TICK_MS);
      await Promise.race([
        this.#wake.promise,
        tick,
        ...this.#reading.values(),
        ...(this.#finding ? [this.#finding] : []),
      ]);
    }
  }

  /** What was taken, and what was asked for that was not here. */
  async #look(): Promise<void> {
    const { files, segmentBytes } = this.#options;
    const names = await readdir(this.#directory);
    const held = names.filter((name) => files.kindOf(name) === 'segment');
    if (this.#held.some((name) => !held.includes(name))) this.#move();
    this.#held = held;
    const asked = await readFile(join(this.#directory, FILES.asked), 'utf8').catch(() => '');
    if (asked === this.#asked || files.kindOf(asked) !== 'segment') return;
    this.#asked = asked;
    this.#move();
    this.#atHeadMs = null;
    const { to } = files.span(asked, segmentBytes);
    const isNext = (name: string) => !files.covers(to, files.span(name, segmentBytes).to);
    const known = [...held, ...this.#reading.keys(), ...this.#queue.map(({ name }) => name)];
    this.#queue = this.#queue.filter(({ name }) => isNext(name));
    const goesOn = known.some((name) => isNext(name) && files.span(name, segmentBytes).from === to);
    const useless = held.filter((name) => !goesOn || !isNext(name));
    await Promise.all(useless.map((name) => rm(join(this.#directory, name), { force: true })));
    this.#held = held.filter((name) => !useless.includes(name));
    if (goesOn) return;
    await this.#finding;
    this.#queue = [];
    this.#foundTo = to;
  }

  #move(): void {
    this.#movedMs = performance.now();
  }

  /** A look for more costs a hundred reads and more: at the head it is for once a second, while something is taken. */
  get #mayBeMore(): boolean {
    const atHeadMs = this.#atHeadMs;
    return atHeadMs === null || (this.#movedMs > atHeadMs && performance.now() - atHeadMs > TICK_MS);
  }

  #fill(): void {
    if (this.#finding === null && this.#mayBeMore && this.#queue.length < KNOWN_AHEAD / 2) {
      this.#finding = this.#find().finally(() => {
        this.#finding = null;
      });
      this.#finding.catch(() => {}); // thrown by whoever waits
    }
    while (this.#reading.size < AT_ONCE && this.#held.length + this.#reading.size < this.#maxSegments) {
      const file = this.#queue.shift();
      if (file === undefined) return;
      const path = join(this.#directory, file.name);
      const write = async () => {
        await writeFound(this.#options.chunks, file, path, path + FILES.part);
        this.#reading.delete(file.name);
        this.#held = [...this.#held, file.name];
      };
      const reading = write();
      reading.catch(() => {}); // thrown by whoever waits
      this.#reading.set(file.name, reading);
    }
  }

  /** The next whole segments of the living log, over the ends of timelines, but never over a gap. */
  async #find(): Promise<void> {
    const { chunks, files, segmentBytes, expected } = this.#options;
    const from = this.#foundTo;
    const until = { kind: 'id', id: files.further(from, KNOWN_AHEAD * segmentBytes) } as const;
    const all = livingSegments(await readRange(chunks.archive, files, { from, until }));
    for (const [index, { run, segment }] of all.entries()) {
      const { toId } = segment.pieces.at(-1)!;
      if (toId === null || files.covers(from, toId)) continue;
      if (index > 0 && run.afterGap) break;
      const isWhole = segment.offset === 0 && segment.length === segmentBytes;
      const isHistory = files.kindOf(segment.name) === 'history';
      if (!isWhole && !isHistory && index === all.length - 1) break;
      if (isWhole) {
        const { name, pieces, length } = segment;
        this.#queue.push({ name, pieces, length, fileBytes: segmentBytes, goesOn: true });
      }
      this.#foundTo = toId;
    }
    this.#atHeadMs = this.#foundTo === from ? performance.now() : null;
    const isKnown = (name: string) => join(this.#directory, name + FILES.part) === expected;
    if (![...this.#reading.keys(), ...this.#queue.map(({ name }) => name)].some(isKnown))
      await rm(expected, { force: true });
  }

  /** Tells, whenever it is asked, whether all that was found is still the log. */
  async #watchForChanges(): Promise<() => Promise<boolean>> {
    const { chunks, recovery } = this.#options;
    const { store, info } = chunks.archive;
    const terms = async () => {
      const found: number[] = [];
      for await (const { key } of store.list(termsPrefix(info.stream), { delimiter: '/' }))
        found.push(termOf(key) ?? 0);
      return found;
    };
    let known = Math.max(0, ...(await terms()));
    const configOf = async () => {
      const { ino, size, mtimeMs, ctimeMs } = await stat(recovery.configFile);
      return [ino, size, mtimeMs, ctimeMs].join();
    };
    const config = await configOf();
    return async () => {
      if ((await configOf()) !== config) return false;
      if ((await readArchive(store, info.stream))?.info.digest !== info.digest) return false;
      for (const term of (await terms()).filter((later) => later > known)) {
        const opening = (await readPlace(chunks.archive, { term, slot: 0 }))?.header;
        if (opening?.kind !== 'opening') continue; // a term is opened before it has anything else
        if (opening.result !== 'resume' && opening.result !== 'switch') return false;
        known = term;
      }
      return true;
    };
  }
}
