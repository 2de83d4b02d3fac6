import { abortReason, Deposed } from '../errors.ts';
import { orAbort } from './abort.ts';
import type {
  Coordination,
  Cursor,
  CursorBoard,
  Elector,
  Leadership,
  Overview,
  Twin,
  TwinBoard,
} from './coordination.ts';
import { type KeptDaemon, type KeptTwin, overviewOf, readCursor, readPromotion, readTwin } from './formats.ts';
import { generationFile, SoloArchives, SoloRequests } from './solo/boards.ts';
import { Folder } from './solo/folder.ts';
import { SoloLimits } from './solo/limits.ts';
import { livingDaemon, lock, unlock } from './solo/lock.ts';
import { poll } from './solo/poll.ts';

export interface SoloOptions {
  readonly node: string;
  /** Everything is kept in its folder `solo`. */
  readonly stateDir: string;
}

/**
 * Coordination for one daemon without etcd, over files by which commands of other processes reach it. Opening touches
 * nothing. The first campaign or publication makes this process the state directory's daemon, or throws
 * STATE_DIR_IN_USE (fatal) while another is.
 */
export async function openSolo({ node, stateDir }: SoloOptions): Promise<Coordination> {
  const folder = new Folder(stateDir, 'solo');
  const daemon = new Daemon(folder, node);
  return {
    kind: 'solo',
    cursors: new SoloCursors(folder),
    archives: new SoloArchives(folder),
    twins: new SoloTwins(folder, daemon),
    requests: new SoloRequests(folder),
    limits: new SoloLimits(folder),
    elector: (stream) => daemon.elector(stream),
    overview: () => overview(folder),
    health: () => ({ reachable: true, leaseRemainingMs: null }),
    certificates: async () => new Map(),
    close: () => daemon.close(),
  };
}

/** This process as the state directory's daemon, from when that is first asked for. */
class Daemon {
  readonly #folder: Folder;
  readonly #node: string;
  readonly #electors = new Map<string, SoloElector>();
  #locked: Promise<KeptDaemon> | null = null;

  constructor(folder: Folder, node: string) {
    this.#folder = folder;
    this.#node = node;
  }

  be(): Promise<KeptDaemon> {
    this.#locked ??= lock(this.#folder, this.#node).catch((error: unknown) => {
      this.#locked = null;
      throw error;
    });
    return this.#locked;
  }

  elector(stream: string): SoloElector {
    let elector = this.#electors.get(stream);
    if (!elector) {
      elector = new SoloElector({ stream, folder: this.#folder, daemon: this });
      this.#electors.set(stream, elector);
    }
    return elector;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#electors.values()].map((elector) => elector.close()));
    if (this.#locked === null) return;
    await this.#locked;
    await unlock(this.#folder);
  }
}

// Above every revision of an earlier life, unless the clock was set back; then only logs show it.
let lastRevision = BigInt(Date.now());

/** Elects whoever asks, one after the other. */
class SoloElector implements Elector {
  readonly #options: { stream: string; folder: Folder; daemon: Daemon };
  #present: SoloLeadership | null = null;

  constructor(options: { stream: string; folder: Folder; daemon: Daemon }) {
    this.#options = options;
  }

  async campaign(signal: AbortSignal): Promise<Leadership> {
    const { stream, folder, daemon } = this.#options;
    const self = await orAbort(daemon.be(), signal);
    while (this.#present !== null) await orAbort(this.#present.over, signal);
    const file = leaderFile(stream);
    const leadership = new SoloLeadership(stream, async () => {
      await folder.remove(file).catch(() => {}); // it says nothing once the daemon has ended
      this.#present = null;
    });
    this.#present = leadership;
    await folder.write(file, instanceOf(self)).catch(() => {}); // for the eyes of other processes only
    if (!signal.aborted) return leadership;
    await leadership.resign();
    throw abortReason(signal);
  }

  async close(): Promise<void> {
    await this.#present?.resign();
  }
}

class SoloLeadership implements Leadership {
  readonly revision = ++lastRevision;
  readonly stream: string;
  /** Resolves when it was resigned. */
  readonly over: Promise<void>;
  readonly #resigned = new AbortController();
  readonly #leave: () => void;

  constructor(stream: string, withdraw: () => Promise<void>) {
    this.stream = stream;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.over = promise.then(withdraw);
    this.#leave = resolve;
  }

  get signal(): AbortSignal {
    return this.#resigned.signal;
  }

  confirmed(): boolean {
    return !this.signal.aborted;
  }

  remainingMs(): number {
    return Number.POSITIVE_INFINITY;
  }

  resign(): Promise<void> {
    this.#resigned.abort(new Deposed(`the leadership of stream "${this.stream}" was given up`));
    this.#leave();
    return this.over;
  }
}

const leaderFile = (stream: string) => `leaders/${stream}`;
const cursorFile = (stream: string) => `cursors/${stream}`;
const TWIN_FILE = 'twin';

class SoloCursors implements CursorBoard {
  readonly #folder: Folder;

  constructor(folder: Folder) {
    this.#folder = folder;
  }

  async load(stream: string): Promise<Cursor | null> {
    return readCursor(await this.#folder.read(cursorFile(stream)));
  }

  /** Not synced to the disk, which the database needs more: a cursor is a hint, and one lost costs a walk. */
  async save(cursor: Cursor, by: Leadership): Promise<void> {
    if (by.signal.aborted) throw new Deposed(`this node does not lead stream "${cursor.stream}" any more`);
    await this.#folder.write(cursorFile(cursor.stream), cursor);
  }

  async *watch(stream: string, signal: AbortSignal): AsyncGenerator<Cursor, void, undefined> {
    for await (const cursor of poll(() => this.load(stream), signal)) if (cursor) yield cursor;
  }

  forget(stream: string): Promise<void> {
    return this.#folder.remove(cursorFile(stream));
  }
}

class SoloTwins implements TwinBoard {
  readonly #folder: Folder;
  readonly #daemon: Daemon;

  constructor(folder: Folder, daemon: Daemon) {
    this.#folder = folder;
    this.#daemon = daemon;
  }

  async publish(twin: Twin): Promise<void> {
    const daemon = await this.#daemon.be();
    await this.#folder.write(TWIN_FILE, { instance: instanceOf(daemon), twin } satisfies KeptTwin);
  }

  async read(): Promise<Twin[]> {
    return readTwins(this.#folder, await livingDaemon(this.#folder));
  }
}

const instanceOf = ({ pid, life }: KeptDaemon) => `${pid}/${life}`;

async function readTwins(folder: Folder, daemon: KeptDaemon | null): Promise<Twin[]> {
  const kept = readTwin(await folder.read(TWIN_FILE));
  return kept && daemon && kept.instance === instanceOf(daemon) ? [kept.twin] : [];
}

async function overview(folder: Folder): Promise<Overview> {
  const daemon = await livingDaemon(folder);
  const files = await Promise.all(['leaders', 'cursors', 'archives'].map((dir) => folder.list(dir)));
  const names = [...new Set(files.flat().map((file) => file.slice(file.indexOf('/') + 1)))].sort();
  // What an earlier daemon left behind names that one.
  const isLed = async (name: string) =>
    daemon !== null && (await folder.read(leaderFile(name))) === JSON.stringify(instanceOf(daemon));
  const streams = names.map(async (name) =>
    overviewOf(name, {
      master: (await isLed(name)) && daemon ? daemon.node : null,
      cursor: readCursor(await folder.read(cursorFile(name))),
      promotion: readPromotion(await folder.read(generationFile(name))),
    }),
  );
  return { streams: await Promise.all(streams), twins: await readTwins(folder, daemon) };
}
