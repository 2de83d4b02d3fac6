import { pause } from '../archive/retry.ts';
import type { TwinBoard, TwinStream } from '../coordination/coordination.ts';
import type { Log } from '../core/log.ts';
import { messageOf, ShipmateError, UsageError } from '../errors.ts';

export interface AgreementOptions {
  readonly stream: string;
  readonly node: string;
  readonly twins: TwinBoard;
  readonly log: Log;
  /** How long a twin may ship elsewhere before that is final, milliseconds: it may be about to take over the same config. */
  readonly withinMs?: number | undefined;
}

/** Where a twin ships to: digest of the config that must agree, and the store generation that it is of. */
export interface Destination {
  readonly config: string;
  readonly generation: number;
}

/** Longer than a twin needs to leave, where both are restarted at once. */
const WITHIN_MS = 3_000;

/** Twins that ship to different stores would each think that the other's archive is theirs: the later one gives way. */
export class Agreement {
  readonly #options: AgreementOptions;
  #sinceMs: number | null = null;

  constructor(options: AgreementOptions) {
    this.#options = options;
  }

  /** Throws while a twin ships elsewhere: CONFIG_DIFFERS (retry) at first, then UsageError. */
  async demand(own: Destination): Promise<void> {
    const { stream, withinMs = WITHIN_MS } = this.#options;
    const [other] = await this.#differing(own);
    if (!other) {
      this.#sinceMs = null;
      return;
    }
    this.#sinceMs ??= performance.now();
    const message = `stream ${stream}: the store, prefix or plan in this config differs from those of node ${other.node}`;
    const hint = 'twins must ship to the same place: make both configs agree, then ';
    if (performance.now() - this.#sinceMs >= withinMs) throw new UsageError(message, `${hint}start this daemon again`);
    throw new ShipmateError(message, { code: 'CONFIG_DIFFERS', verdict: 'retry', hint: `${hint}reload them` });
  }

  /**
   * Looks again and again, until the signal aborts (throws its reason): two that start at once do not see yet where the other
   * ships to. Then whoever leads stays, and before that the first by name; the other one is told to leave.
   */
  async keep(
    own: Destination,
    { everyMs, isMaster, leave }: { everyMs: number; isMaster: () => boolean; leave: (why: Error) => void },
    signal: AbortSignal,
  ): Promise<never> {
    const { node, log } = this.#options;
    for (;;) {
      await pause(everyMs, signal);
      if (isMaster()) continue;
      try {
        const stays = (await this.#differing(own)).find((other) => other.role === 'master' || other.node < node);
        if (stays) leave(new Error(`node ${stays.node} ships elsewhere`));
      } catch (error) {
        log.debug(`the twins' configs could not be compared: ${messageOf(error)}`, { error });
      }
    }
  }

  /** Twins that ship elsewhere, or would. */
  async #differing({ config, generation }: Destination): Promise<(TwinStream & { readonly node: string })[]> {
    const { stream, node, twins } = this.#options;
    const told = (await twins.read()).flatMap((twin) => twin.streams.map((state) => ({ ...state, node: twin.node })));
    return told.filter((other) => {
      if (other.name !== stream || other.node === node) return false;
      if (other.role === 'starting' || other.role === 'stopped') return false;
      // Of another generation: one of both has yet to hear of a promotion.
      return other.config !== config && (other.generation ?? 0) === generation;
    });
  }
}
