import { pause } from '../archive/retry.ts';
import type {
  CursorBoard,
  OperatorRequest,
  PendingRequest,
  RequestBoard,
  TwinBoard,
} from '../coordination/coordination.ts';
import type { ChainEnd } from '../core/chain.ts';
import type { Log } from '../core/log.ts';
import { type Position, samePlace } from '../core/position.ts';
import { messageOf } from '../errors.ts';
import type { Located } from '../source/source.ts';

export interface DeskOptions {
  readonly stream: string;
  readonly node: string;
  readonly requests: RequestBoard;
  readonly cursors: CursorBoard;
  readonly twins: TwinBoard;
  readonly log: Log;
  /** The archive's end as this twin knows it. */
  readonly end: () => ChainEnd | null;
  /** Whether this twin ships: then there is nothing to accept. */
  readonly isMaster: () => boolean;
  /** Told whenever a decision arrived that the role loop must look at. */
  readonly onDecision: () => void;
}

/** How long all but the node that is to take over stand back, the former master too, so that it is elected. */
const STAND_BACK_MS = 5_000;

/** Why a master leaves when it is asked to. */
export class HandedOver extends Error {
  readonly pending: PendingRequest;
  constructor(pending: PendingRequest) {
    super('handed over on request');
    this.pending = pending;
  }
}

/** An operator's yes: to what stands at one end of the log, and only for a while. */
interface Acceptance {
  readonly pending: PendingRequest;
  readonly untilMs: number;
  /** Where the archive ended when it was accepted (in etcd an older cursor may stand); not known then: what is seen first. */
  end: Position | null;
}

/** An acceptance that could not be used by then is forgotten, so that no later gap is accepted unseen. */
const ACCEPTED_MS = 30_000;

/** Where an operator's requests for one stream arrive, and are answered. */
export class Desk {
  readonly #options: DeskOptions;
  #leave: ((reason: HandedOver) => void) | null = null;
  #accepted: Acceptance | null = null;
  /** Until when, unless the term that was open then is over before. */
  #standsBack: { readonly untilMs: number; readonly term: number | undefined } | null = null;

  constructor(options: DeskOptions) {
    this.#options = options;
  }

  /** Takes requests in until the signal aborts (throws its reason). */
  async attend(signal: AbortSignal): Promise<never> {
    const { requests, stream, log } = this.#options;
    let failure: string | null = null;
    for (;;) {
      try {
        for await (const pending of requests.watch(stream, signal)) {
          const { kind, by } = pending.request;
          log.info(`request: ${kind}`, { by, to: pending.request.to });
          await this.#take(pending).catch((error) =>
            log.warn(`request ${kind} failed: ${messageOf(error)}`, { error }),
          );
        }
      } catch (error) {
        if (messageOf(error) !== failure) log.warn(`requests can't be looked for: ${messageOf(error)}`, { error });
        failure = messageOf(error);
      }
      await pause(1_000, signal);
    }
  }

  /** From its election on: `leave` is called with a HandedOver when the stream is to be handed over. */
  onHandover(leave: ((reason: HandedOver) => void) | null): void {
    this.#leave = leave;
  }

  /** Whether another node was asked for just now. */
  get standsBack(): boolean {
    if (this.#standsBack === null) return false;
    const { untilMs, term } = this.#standsBack;
    return performance.now() < untilMs && this.#options.end()?.term === term;
  }

  /** Whether an operator accepted this result at this very end of the log. */
  accepts(located: Located, end: ChainEnd): boolean {
    const accepted = this.#accepted;
    if (accepted === null || located.at === null || end.position === null) return false;
    if (performance.now() > accepted.untilMs) {
      this.#accepted = null;
      return false;
    }
    accepted.end ??= end.position;
    return accepted.pending.request.kind === `accept-${located.result}` && samePlace(accepted.end, end.position);
  }

  /** What was accepted, as evidence for the opening. */
  get acceptance(): Pick<OperatorRequest, 'by' | 'time'> | null {
    const request = this.#accepted?.pending.request;
    return request ? { by: request.by, time: request.time } : null;
  }

  /** A term was opened: whatever was accepted is done or no longer needed. */
  async opened(message: string): Promise<void> {
    const accepted = this.#accepted;
    this.#accepted = null;
    if (accepted) await this.answer(accepted.pending, true, message);
  }

  async answer(pending: PendingRequest, ok: boolean, message: string): Promise<void> {
    const { requests, log } = this.#options;
    try {
      await requests.answer(pending, { ok, message });
    } catch (error) {
      log.warn(`an operator's request could not be answered: ${messageOf(error)}`, { error });
    }
  }

  async #take(pending: PendingRequest): Promise<void> {
    const { request } = pending;
    const { cursors, stream, isMaster } = this.#options;
    if (request.kind === 'handover') {
      await this.#handOver(pending);
    } else if (isMaster()) {
      await this.answer(pending, false, 'there is nothing to accept: a master ships this stream');
    } else {
      const head = await cursors.load(stream);
      if (request.head !== undefined && head?.digest !== request.head) {
        await this.answer(pending, false, 'the archive has moved on since: look again');
      } else {
        const untilMs = performance.now() + ACCEPTED_MS;
        this.#accepted = { pending, untilMs, end: this.#options.end()?.position ?? null };
        this.#options.onDecision();
      }
    }
  }

  async #handOver(pending: PendingRequest): Promise<void> {
    const { node, onDecision } = this.#options;
    const { to } = pending.request;
    if (this.#leave === null) {
      if (to === undefined || to === node) return;
      this.#standBack();
      return onDecision();
    }
    if (to === node) return this.answer(pending, true, `${node} is the master already`);
    const refusal = await this.#nobodyReady(to);
    return refusal === null ? this.#leaveFor(pending) : this.answer(pending, false, refusal);
  }

  /** Why no twin, or not the one that was asked for, could take over; null where one could. */
  async #nobodyReady(to: string | undefined): Promise<string | null> {
    const { stream, node, twins } = this.#options;
    const others = (await twins.read()).filter((twin) => twin.node !== node && (to === undefined || twin.node === to));
    const states = others.flatMap((twin) =>
      twin.streams.filter(({ name }) => name === stream).map((state) => ({ node: twin.node, ...state })),
    );
    if (states.some(({ ready }) => ready)) return null;
    const reasons = states.map((state) => `${state.node}: ${state.reason}`).join('; ');
    return `no ${to ?? 'other twin'} is ready to take over${reasons && ` (${reasons})`}`;
  }

  async #leaveFor(pending: PendingRequest): Promise<void> {
    if (this.#leave === null) return this.answer(pending, false, `${this.#options.node} is not the master any more`);
    this.#standBack();
    this.#leave(new HandedOver(pending));
  }

  #standBack(): void {
    this.#standsBack = { untilMs: performance.now() + STAND_BACK_MS, term: this.#options.end()?.term };
  }
}
