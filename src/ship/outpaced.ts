import { pause } from '../archive/retry.ts';
import type { RequestBoard, Twin, TwinBoard } from '../coordination/coordination.ts';
import type { Log } from '../core/log.ts';
import { messageOf } from '../errors.ts';
import type { StreamMetrics } from '../metrics.ts';

/** When a twin counts as far ahead, and for long. */
export interface Pace {
  /** What it has and nobody has shipped is at least so old: what it tells is up to a second old, and clocks differ. */
  readonly aheadSeconds: number;
  /** In every look for so long. */
  readonly forMs: number;
  /** A reign lasts at least so long before it is handed on for this reason: two twins never play ping-pong. */
  readonly coolDownMs: number;
  readonly lookMs: number;
}

export const PACE: Pace = { aheadSeconds: 10, forMs: 15_000, coolDownMs: 180_000, lookMs: 1_000 };

interface Names {
  readonly stream: string;
  readonly node: string;
}

/** A twin that has what the master's own log lacks. */
export interface Ahead {
  readonly node: string;
  readonly lagBytes: number;
  readonly lagSeconds: number;
}

/**
 * Rule 21, from what the twins tell: is there a ready one whose log has gone on for long, while the master's own log had
 * nothing more to give, or could not be asked? A master that merely can't ship (a slow store, a backlog) has as much left as its twin.
 */
export class Outpaced {
  readonly #names: Names;
  readonly #pace: Pace;
  #masterSinceMs: number | null = null;
  #aheadSinceMs = new Map<string, number>();

  constructor(names: Names, pace: Pace) {
    this.#names = names;
    this.#pace = pace;
  }

  /** The twin that should have the term; null where none should, or not yet. `nowMs` is monotonic. */
  observe(twins: readonly Twin[], nowMs: number): Ahead | null {
    const { stream, node } = this.#names;
    const told = twins.flatMap((twin) =>
      twin.streams.filter(({ name }) => name === stream).map((state) => ({ node: twin.node, ...state })),
    );
    const own = told.find((state) => state.node === node);
    if (own?.role !== 'master') {
      this.#masterSinceMs = null;
      this.#aheadSinceMs.clear();
      return null;
    }
    this.#masterSinceMs ??= nowMs;
    const { aheadSeconds, forMs, coolDownMs } = this.#pace;
    const ahead = told.flatMap(({ node: other, ready, lagBytes, lagSeconds }): Ahead[] => {
      if (other === node || !ready || lagBytes === null || lagSeconds === null) return [];
      // An own log that can't be measured in any look has nothing to give either: its disk is gone, or hangs.
      const hasMore = (own.lagBytes ?? 0) * 2 <= lagBytes && lagSeconds >= aheadSeconds;
      return hasMore ? [{ node: other, lagBytes, lagSeconds }] : [];
    });
    this.#aheadSinceMs = new Map(ahead.map((one) => [one.node, this.#aheadSinceMs.get(one.node) ?? nowMs]));
    if (nowMs - this.#masterSinceMs < coolDownMs) return null;
    return ahead.find((one) => nowMs - this.#aheadSinceMs.get(one.node)! >= forMs) ?? null;
  }

  /** It was asked, and could not: look for as long again before the next time. */
  refused({ node }: Ahead): void {
    this.#aheadSinceMs.delete(node);
  }
}

export interface HandOnOptions extends Names {
  readonly pace: Pace;
  readonly twins: TwinBoard;
  readonly requests: RequestBoard;
  readonly metrics: StreamMetrics;
  readonly log: Log;
  readonly isMaster: () => boolean;
}

const ANSWER_MS = 10_000;

/** While master: hands the term to a twin that is far ahead for long, by the door that `shipmate handover` uses. */
export async function handOnWhenOutpaced(options: HandOnOptions, signal: AbortSignal): Promise<never> {
  const { pace, twins, isMaster, log } = options;
  const outpaced = new Outpaced(options, pace);
  for (;;) {
    await pause(pace.lookMs, signal);
    try {
      const ahead = outpaced.observe(isMaster() ? await twins.read() : [], performance.now());
      if (ahead && !(await handOn(ahead, options))) outpaced.refused(ahead);
    } catch (error) {
      log.debug(`the twins could not be compared: ${messageOf(error)}`, { error });
    }
  }
}

async function handOn(ahead: Ahead, { stream, node, requests, metrics, log }: HandOnOptions): Promise<boolean> {
  const { node: to, lagBytes, lagSeconds } = ahead;
  const reason = `${to} has ${lagBytes} bytes, the oldest of them ${Math.round(lagSeconds)} s old, that the log here lacks`;
  log.warn(`outpaced: ${reason}: the term is handed to it`, {
    hint: `see whether replication to the server of ${node} stands still`,
  });
  const request = { kind: 'handover', to, by: `${node}: ${reason}`, time: new Date().toISOString() } as const;
  const answer = await requests.ask(stream, request, ANSWER_MS);
  if (answer?.ok) metrics.handedOn();
  else log.warn(`the term could not be handed to ${to}: ${answer?.message ?? 'nobody answered'}`);
  return answer?.ok ?? false;
}
