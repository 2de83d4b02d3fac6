import { randomBytes } from 'node:crypto';
import { appendFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { stringify } from 'yaml';
import type { StatusReport } from '../../src/core/status.ts';
import { Daemon } from './daemon.ts';
import { freePort } from './ports.ts';
import { until } from './wait.ts';

const MIB = 1024 * 1024;

export interface BandwidthOptions {
  /** What is shipped and copied; in eights. */
  readonly historyMib: number;
  readonly linkMib: number;
  /** Of it, from 0 to 1; the rest is the guarantee of `slow`. */
  readonly shipping: number;
  readonly chunk: string;
  /** Of the log whose lag is watched. */
  readonly liveBytesPerSecond: number;
}

/** Cumulative, at one moment. */
interface Sample {
  /** Monotonic, milliseconds. */
  readonly atMs: number;
  /** Sent, by class, as the daemon's metrics say. */
  readonly shippingBytes: number;
  readonly slowBytes: number;
  /** Of the live log, durable. */
  readonly liveBytes: number;
}

export interface BandwidthFigures {
  /** Of the live log, from the write to when it was seen to be durable. */
  readonly lagMaxMs: number;
  /** While there was log to ship: windows of up to 30 s. */
  readonly slow: readonly {
    /** What it was given, of its guarantee. */
    readonly share: number;
    /** The same of what log shipping left of the link: 1 while that wants all of its own, as it does on a machine that keeps up. */
    readonly ofLeft: number;
  }[];
  /** From when log shipping left most of its part unused until `slow` had nine tenths of the link, over a second. */
  readonly lentAfterMs: number;
  readonly copiedMib: number;
}

const PIECE_MIB = 8;
const LIVE_MS = 20;
const SAMPLE_MS = 40;
/** What comes first is shipped while there is nothing to copy yet. */
const WARM_UP_MS = 1_500;
const WINDOW_MS = 30_000;

/**
 * A real daemon with a limited link: it ships a large log as fast as it may, copies it in class `slow` at the same time,
 * and ships a small log that is being written.
 */
export class BandwidthRun {
  readonly daemon: Daemon;
  readonly #options: BandwidthOptions;
  readonly #dir: string;
  readonly #written: { readonly bytes: number; readonly atMs: number }[] = [];
  readonly #samples: Sample[] = [];

  private constructor(daemon: Daemon, options: BandwidthOptions, dir: string) {
    this.daemon = daemon;
    this.#options = options;
    this.#dir = dir;
  }

  static async prepare(options: BandwidthOptions): Promise<BandwidthRun> {
    const dir = await mkdtemp(join(tmpdir(), 'shipmate-bandwidth-'));
    const { historyMib, linkMib, shipping, chunk: maxBytes } = options;
    for (const name of ['main', 'nas', 'history', 'live']) await mkdir(join(dir, name));
    const piece = randomBytes(PIECE_MIB * MIB); // beyond what one chunk can find again
    for (let n = 0; n * PIECE_MIB < historyMib; n++) {
      // Or else the first seconds measure how the disk takes all of it at once.
      await writeFile(join(dir, 'history', `history-${n}.log`), piece, { flush: true });
    }
    await writeFile(join(dir, 'live', 'live.log'), '');
    const source = (name: string) => ({ type: 'files', dir: join(dir, name), settle: '0s' });
    const configFile = join(dir, 'shipmate.yaml');
    const listen = `127.0.0.1:${await freePort()}`;
    const chunk = { maxBytes, maxDelay: '20ms' };
    const config = {
      node: 'db-1',
      cluster: 'acme',
      stateDir: join(dir, 'state'),
      coordination: 'solo',
      stores: { main: { type: 'file', path: join(dir, 'main') }, nas: { type: 'file', path: join(dir, 'nas') } },
      plans: { two: { primary: 'main', copies: ['nas'], class: 'slow' } },
      limits: {
        link: `${linkMib}MiB/s`,
        shipping: `${Math.round(shipping * 100)}%`,
        classes: { slow: `${linkMib * (1 - shipping)}MiB/s` },
      },
      streams: {
        history: { source: source('history'), plan: 'two', chunk },
        live: { source: source('live'), store: 'main', chunk },
      },
      admin: { listen },
    };
    await writeFile(configFile, stringify(config));
    const daemon = new Daemon({ node: 'db-1', configFile, url: `http://${listen}`, faultsFile: undefined });
    return new BandwidthRun(daemon, options, dir);
  }

  async run(): Promise<BandwidthFigures> {
    const { historyMib } = this.#options;
    await this.daemon.start();
    await until('the daemon leads the live log', async () => (await this.#sample()) !== null);
    const stop = new AbortController();
    const tasks = [this.#write(stop.signal), this.#watch(stop.signal)];
    const within = { withinMs: 600_000, describe: () => this.daemon.tail() };
    try {
      await until('all is copied', () => (this.#samples.at(-1)?.slowBytes ?? 0) >= historyMib * MIB, within);
      const written = this.#written.at(-1)!;
      await until('the live log is durable', () => this.#samples.some(({ liveBytes }) => liveBytes >= written.bytes));
    } finally {
      stop.abort();
      await Promise.all(tasks);
    }
    return this.#figures();
  }

  async stop(): Promise<void> {
    await this.daemon.kill();
    await rm(this.#dir, { recursive: true, force: true });
  }

  async #write(signal: AbortSignal): Promise<void> {
    const path = join(this.#dir, 'live', 'live.log');
    const beganMs = performance.now();
    let bytes = 0;
    while (!signal.aborted) {
      const due = Math.floor(((performance.now() - beganMs) / 1000) * this.#options.liveBytesPerSecond);
      if (due > bytes) {
        await appendFile(path, randomBytes(due - bytes));
        bytes = due;
        this.#written.push({ bytes, atMs: performance.now() });
      }
      await delay(LIVE_MS);
    }
  }

  async #watch(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const sample = await this.#sample();
      if (sample) this.#samples.push(sample);
      await delay(SAMPLE_MS);
    }
  }

  async #sample(): Promise<Sample | null> {
    const ask = async (path: string) => (await fetch(`${this.daemon.url}${path}`)).text();
    const [metrics, status] = await Promise.all([ask('/metrics'), ask('/api/v1/status')]);
    const report: StatusReport = JSON.parse(status);
    const live = report.streams.find(({ name }) => name === 'live');
    if (!live?.master) return null;
    const sent = (name: string) =>
      Number(new RegExp(`^shipmate_bandwidth_bytes_total\\{class="${name}"\\} (.*)$`, 'm').exec(metrics)?.[1] ?? 0);
    return {
      atMs: performance.now(),
      shippingBytes: sent('shipping'),
      slowBytes: sent('slow'),
      liveBytes: live.cursor?.offset ?? 0,
    };
  }

  #figures(): BandwidthFigures {
    const { historyMib, linkMib, shipping } = this.#options;
    const shippedMs = this.#samples.find((one) => one.shippingBytes - one.liveBytes >= historyMib * MIB)!.atMs;
    const guaranteed = (linkMib * MIB * (1 - shipping)) / 1000;
    return {
      lagMaxMs: this.#lagMaxMs(),
      slow: this.#windows(shippedMs).map(([from, to]) => {
        const perMs = (bytes: (one: Sample) => number) => (bytes(to) - bytes(from)) / (to.atMs - from.atMs);
        const given = perMs(({ slowBytes }) => slowBytes);
        const left = (linkMib * MIB) / 1000 - perMs(({ shippingBytes }) => shippingBytes);
        return { share: given / guaranteed, ofLeft: given / left };
      }),
      lentAfterMs: this.#lentAfterMs(shippedMs),
      copiedMib: Math.round(this.#samples.at(-1)!.slowBytes / MIB),
    };
  }

  #lagMaxMs(): number {
    let at = 0;
    const lags = this.#written.flatMap(({ bytes, atMs }) => {
      while (at < this.#samples.length && this.#samples[at]!.liveBytes < bytes) at++;
      const seen = this.#samples[at];
      return seen ? seen.atMs - atMs : [];
    });
    return Math.max(...lags);
  }

  /** From the warm-up until log shipping was done, in windows of half a minute, or one that is shorter. */
  #windows(shippedMs: number): [Sample, Sample][] {
    const firstMs = this.#samples.find(({ slowBytes }) => slowBytes > 0)!.atMs + WARM_UP_MS;
    // From one step to another: a copy is sent in pieces of up to 16 MiB.
    const busy = this.#samples.filter(
      ({ atMs, slowBytes }, n) =>
        atMs >= firstMs && atMs <= shippedMs && slowBytes > (this.#samples[n - 1]?.slowBytes ?? 0),
    );
    const lengthMs = Math.min(WINDOW_MS, shippedMs - firstMs);
    return Array.from({ length: Math.floor((shippedMs - firstMs) / lengthMs) }, (_, n) => {
      const within = busy.filter(({ atMs }) => atMs >= firstMs + n * lengthMs && atMs <= firstMs + (n + 1) * lengthMs);
      return [within[0]!, within.at(-1)!];
    });
  }

  #lentAfterMs(shippedMs: number): number {
    const { linkMib, liveBytesPerSecond } = this.#options;
    const wanted = 0.9 * (linkMib * MIB - liveBytesPerSecond);
    const lent = this.#samples.find(({ atMs, slowBytes }) => {
      const later = this.#samples.find((one) => one.atMs >= atMs + 1_000);
      return atMs >= shippedMs && later && ((later.slowBytes - slowBytes) * 1_000) / (later.atMs - atMs) >= wanted;
    });
    return lent ? lent.atMs - shippedMs : Number.POSITIVE_INFINITY;
  }
}
