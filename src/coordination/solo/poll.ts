import { setTimeout as delay } from 'node:timers/promises';

const POLL_MS = 100;

/** What `read` gives now, and again whenever that has changed; ends quietly with the signal. */
export async function* poll<T>(read: () => Promise<T>, signal: AbortSignal): AsyncGenerator<T, void, undefined> {
  let last: string | undefined;
  while (!signal.aborted) {
    const now = await read();
    const seen = JSON.stringify(now);
    if (seen !== last && !signal.aborted) yield now;
    last = seen;
    await delay(POLL_MS, undefined, { signal }).catch(() => {});
  }
}
