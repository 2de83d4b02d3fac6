import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { ICompare } from 'etcd3';
import { Fresh } from '../../core/fresh.ts';
import { ShipmateError } from '../../errors.ts';
import type { Twin, TwinBoard } from '../coordination.ts';
import { type KeptTwin, readTwin } from '../formats.ts';
import type { BoardOptions } from './boards.ts';
import { isLeaseGone } from './errors.ts';
import { type Entry, isAbsent, isUnder, list, transact, wasChangedAt } from './kv.ts';
import type { Lease, Session } from './session.ts';

export interface TwinBoardOptions extends BoardOptions {
  readonly session: Session;
  readonly node: string;
  /** How long a namesake's key may live on before it is taken for that of a living daemon, milliseconds. */
  readonly namesakeMs: number;
}

const LEASE_WITHIN_MS = 2_000;
const LOOK_AGAIN_MS = 200;

/** The node's key stands under the daemon's lease, and is put there again under each new one. */
export class EtcdTwins implements TwinBoard {
  readonly #options: TwinBoardOptions;
  readonly #key: string;
  /** This daemon's life: a namesake has another, and so has the same daemon after a restart. */
  readonly #instance = randomUUID();
  #newest: Twin | null = null;
  readonly #publications = new Fresh(() => this.#put());

  constructor(options: TwinBoardOptions) {
    this.#options = options;
    this.#key = options.keys.node(options.node);
    options.session.onGrant(() => {
      // If the name is taken by now, the next publication says so.
      if (this.#newest) this.publish(this.#newest).catch(() => {});
    });
  }

  /** One publication at a time; of those asked for meanwhile only the newest is made. */
  publish(twin: Twin): Promise<void> {
    this.#newest = twin;
    return this.#publications.ask();
  }

  async read(): Promise<Twin[]> {
    return toTwins(await list(this.#options.client, { prefix: this.#options.keys.nodes }));
  }

  async #put(): Promise<void> {
    const { session, node, namesakeMs } = this.#options;
    for (let waitedMs = 0; ; waitedMs += LOOK_AGAIN_MS) {
      const lease = await session.leaseWithin(LEASE_WITHIN_MS);
      try {
        if (await this.#putUnder(lease)) return;
      } catch (error) {
        if (!isLeaseGone(error)) throw error;
        session.lost(lease);
        continue;
      }
      if (waitedMs >= namesakeMs) throw nameTaken(node);
      await delay(LOOK_AGAIN_MS);
    }
  }

  /** False where a namesake's key stands in the way: perhaps our own, of a life that ended without a word. */
  async #putUnder(lease: Lease): Promise<boolean> {
    const key = this.#key;
    if (await this.#putIf(isUnder(key, lease.id), lease)) return true;
    const [there] = await list(this.#options.client, { key });
    if (!there) return this.#putIf(isAbsent(key), lease);
    if (readTwin(there.value)?.instance !== this.#instance) return false;
    return this.#putIf(wasChangedAt(key, there.modRevision), lease);
  }

  async #putIf(condition: ICompare, lease: Lease): Promise<boolean> {
    const kept: KeptTwin = { instance: this.#instance, twin: this.#newest! };
    const put = { key: Buffer.from(this.#key), value: Buffer.from(JSON.stringify(kept)), lease: lease.id };
    const request = { compare: [condition], success: [{ request_put: put }] };
    return (await transact(this.#options.client, request)).succeeded;
  }
}

export function toTwins(entries: readonly Entry[]): Twin[] {
  return entries.flatMap(({ value }) => readTwin(value)?.twin ?? []);
}

function nameTaken(node: string): ShipmateError {
  return new ShipmateError(`another living daemon calls itself node "${node}"`, {
    code: 'NODE_NAME_TAKEN',
    hint: 'give each twin its own "node" in its config, and run one daemon per config',
  });
}
