import type { IDuplexStream, IWatchRequest, IWatchResponse } from 'etcd3';
import type { Log } from '../../core/log.ts';
import type { Client } from './client.ts';
import type { Endpoint } from './endpoint.ts';
import { isUnreachable } from './errors.ts';
import { type Entry, list, type Range, rangeRequest } from './kv.ts';

export interface FollowOptions {
  readonly client: Client;
  readonly range: Range;
  /** Ends it quietly, as does closing the client. */
  readonly signal: AbortSignal;
  readonly log: Log;
  /** Longest time between two looks, milliseconds. */
  readonly pollMs?: number;
}

const POLL_MS = 1_000;
/** How long to wait after a failed look, or before a broken watch is opened again, milliseconds. */
const RETRY_MS = 250;

/**
 * What stands in a range now, and again whenever that has changed, in between the newest only. A watch's events are
 * only hints to look: what counts is the fresh list. So it can't matter that a watch died, was compacted away or hangs
 * on a frozen member, nor that etcd was wiped and counts its revisions anew.
 */
export async function* follow(options: FollowOptions): AsyncGenerator<readonly Entry[], void, undefined> {
  const { client, range, log, pollMs = POLL_MS } = options;
  const signal = AbortSignal.any([options.signal, client.closed]);
  const bell = new Bell();
  const watch = new Watch({ client, range, heard: () => bell.ring() });
  let last: readonly Entry[] | null = null;
  let told = true;
  let refused = false;
  try {
    while (!signal.aborted) {
      try {
        const entries = await list(client, range);
        refused = false;
        if (last === null || !sameEntries(entries, last)) {
          if (!told) watch.reopen(); // it should have told
          last = entries;
          if (!signal.aborted) yield entries;
        }
        told = await bell.wait(pollMs, signal);
      } catch (error) {
        // The client itself tells of an etcd that can't be reached.
        if (!signal.aborted && !refused && !isUnreachable(error)) log.warn('etcd refuses a read', { error });
        refused = !isUnreachable(error);
        told = await bell.wait(RETRY_MS, signal);
      }
    }
  } finally {
    watch.close();
  }
}

function sameEntries(a: readonly Entry[], b: readonly Entry[]): boolean {
  const same = (one: Entry, other: Entry | undefined) =>
    one.key === other?.key &&
    one.createRevision === other.createRevision &&
    one.modRevision === other.modRevision &&
    one.lease === other.lease &&
    one.value === other.value;
  return a.length === b.length && a.every((entry, n) => same(entry, b[n]));
}

/** Rung any number of times, heard once. */
class Bell {
  #rung = false;
  #wake = () => {};

  ring(): void {
    this.#rung = true;
    this.#wake();
  }

  /** Whether it was rung since the last wait, or is within the time. */
  async wait(withinMs: number, signal: AbortSignal): Promise<boolean> {
    if (!this.#rung && !signal.aborted) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(() => this.#wake(), withinMs);
        const wake = () => this.#wake();
        signal.addEventListener('abort', wake, { once: true });
        this.#wake = () => {
          clearTimeout(timer);
          signal.removeEventListener('abort', wake);
          this.#wake = () => {};
          resolve();
        };
      });
    }
    const rung = this.#rung;
    this.#rung = false;
    return rung;
  }
}

type WatchStream = IDuplexStream<IWatchRequest, IWatchResponse>;

/** A watch that opens itself again. `heard` also follows each opening: nobody knows what happened before it. */
class Watch {
  readonly #options: { client: Client; range: Range; heard: () => void };
  #stream: WatchStream | null = null;
  #again: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: { client: Client; range: Range; heard: () => void }) {
    this.#options = options;
    void this.#open();
  }

  reopen(): void {
    this.#drop();
    void this.#open();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#again);
    this.#drop();
  }

  async #open(): Promise<void> {
    const { client, range, heard } = this.#options;
    clearTimeout(this.#again);
    try {
      const { stream, endpoint } = await client.open(({ etcd }) => etcd.watchClient.watch());
      if (this.#closed || this.#stream !== null) return end(stream);
      this.#stream = stream;
      stream.on('data', (response) => {
        if (response.canceled) this.#broken(stream, endpoint, new Error(response.cancel_reason));
        else if (this.#stream === stream) heard();
      });
      stream.on('error', (error) => this.#broken(stream, endpoint, error));
      stream.on('end', () => this.#broken(stream, endpoint, new Error('the watch ended')));
      stream.write({ create_request: rangeRequest(range) });
    } catch {
      this.#openLater();
    }
  }

  #broken(stream: WatchStream, endpoint: Endpoint, error: Error): void {
    if (this.#stream !== stream) return;
    endpoint.streamFailed(error);
    this.#drop();
    this.#openLater();
  }

  #openLater(): void {
    if (this.#closed) return;
    clearTimeout(this.#again);
    this.#again = setTimeout(() => void this.#open(), RETRY_MS);
  }

  #drop(): void {
    const stream = this.#stream;
    this.#stream = null;
    if (stream) end(stream);
  }
}

/** Ended before it is cancelled, lest etcd3 takes the cancelling for a failure and closes the member's connections. */
function end(stream: WatchStream): void {
  stream.on('error', () => {});
  stream.end();
  stream.cancel();
}
