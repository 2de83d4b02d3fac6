import { setTimeout as sleep } from 'node:timers/promises';
import type { Overview } from '../coordination/coordination.ts';
import { secondsText } from '../core/format.ts';
import { messageOf } from '../errors.ts';
import type { Screen } from './screen.ts';
import type { Attention } from './status-attention.ts';

/** What was seen last, and how old it is. */
export interface Sight {
  readonly overview: Overview;
  readonly note: string;
  readonly more: readonly Attention[];
}

const LOOK_EVERY_MS = 500;
/** Daemons tell of themselves twice a second. */
const SILENT_MS = 3_000;

export interface WatchOptions {
  readonly screen: Screen;
  readonly first: Overview;
  readonly look: () => Promise<Overview>;
  /** Lines of at most so many columns. */
  readonly draw: (sight: Sight, columns: number) => string;
}

/** Shows what `look` gives until the screen's signal. While it gives nothing, what was seen last stays, and says how old it is. */
export async function keepWatch({ screen, first, look, draw }: WatchOptions): Promise<void> {
  const watcher = new Watcher(first);
  const looking = lookOn(watcher, look, screen.signal);
  try {
    while (!screen.signal.aborted) {
      const sight = watcher.sight();
      screen.show((columns) => draw(sight, columns));
      await sleep(LOOK_EVERY_MS, undefined, { signal: screen.signal }).catch(() => {});
    }
  } finally {
    screen.close();
  }
  await Promise.race([looking, sleep(0)]); // a look that hangs is left
}

async function lookOn(watcher: Watcher, look: () => Promise<Overview>, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const begun = performance.now();
    try {
      watcher.see(await look(), begun);
    } catch (error) {
      watcher.fail(error);
    }
    const restMs = Math.max(0, begun + LOOK_EVERY_MS - performance.now());
    await sleep(restMs, undefined, { signal }).catch(() => {});
  }
}

/** Remembers what was seen, and since when each daemon has told nothing new. By this host's clock alone: others may go wrong. */
class Watcher {
  #overview: Overview;
  #seenMs = performance.now();
  #seenAt = new Date();
  #failure: string | null = null;
  #told = new Map<string, { readonly time: string; readonly sinceMs: number }>();

  constructor(first: Overview) {
    this.#overview = first;
    this.see(first, this.#seenMs);
  }

  /** `begunMs`: when it was asked for, so that it is no newer than it says. */
  see(overview: Overview, begunMs: number): void {
    const known = this.#told;
    this.#told = new Map(
      overview.twins.map(({ node, time }) => {
        const before = known.get(node);
        return [node, before?.time === time ? before : { time, sinceMs: begunMs }];
      }),
    );
    this.#overview = overview;
    this.#seenMs = begunMs;
    this.#seenAt = new Date();
    this.#failure = null;
  }

  fail(error: unknown): void {
    this.#failure = messageOf(error);
  }

  sight(): Sight {
    const nowMs = performance.now();
    const ageMs = nowMs - this.#seenMs;
    const at = this.#seenAt.toTimeString().slice(0, 8);
    const isOld = ageMs >= SILENT_MS || this.#failure !== null;
    const silent = isOld ? [] : [...this.#told].filter(([, { sinceMs }]) => nowMs - sinceMs >= SILENT_MS);
    return {
      overview: this.#overview,
      note: `; as of ${at}, ${secondsText(ageMs / 1000)} ago`,
      more: [
        ...(isOld
          ? [{ level: 'error' as const, streams: [], what: `no news since ${at}: ${this.#failure ?? 'no answer yet'}` }]
          : []),
        ...silent.map(([node, { sinceMs }]) => ({
          level: 'warning' as const,
          streams: [],
          what: `${node} has told nothing for ${secondsText((nowMs - sinceMs) / 1000)}: it hangs, or is cut off`,
        })),
      ],
    };
  }
}
