import type { Answer, Coordination, OperatorRequest, TwinStream } from '../../src/coordination/coordination.ts';
import { openEtcd } from '../../src/coordination/etcd.ts';

export interface StandInOptions {
  readonly cluster: string;
  readonly node: string;
  readonly endpoints: readonly string[];
}

/** What a daemon is to the command line: it leads or waits, publishes its state, and answers what it is asked. */
export class StandIn {
  readonly node: string;
  readonly asked: OperatorRequest[] = [];
  readonly coordination: Coordination;
  readonly #leaving = new AbortController();
  #telling: NodeJS.Timeout | undefined;

  static async start(
    { cluster, node, endpoints }: StandInOptions,
    state: Partial<TwinStream> = {},
    answer?: Answer,
  ): Promise<StandIn> {
    const log = { debug() {}, info() {}, warn() {}, error() {} };
    const coordination = await openEtcd({ cluster, node, endpoints, ttlMs: 5000, onEtcdLoss: 'continue', log });
    const daemon = new StandIn(node, coordination);
    await daemon.publish(state);
    if (answer) daemon.#answer(answer).catch(() => {});
    return daemon;
  }

  constructor(node: string, coordination: Coordination) {
    this.node = node;
    this.coordination = coordination;
  }

  publish(state: Partial<TwinStream>, at = new Date()): Promise<void> {
    const stream: TwinStream = {
      name: 'orders',
      role: 'standby',
      ready: true,
      reason: 'resume: same bytes',
      lagBytes: 0,
      lagSeconds: 0,
      config: 'c',
      ...state,
    };
    const time = at.toISOString();
    return this.coordination.twins.publish({ node: this.node, version: '1', format: 1, time, streams: [stream] });
  }

  /** Tells it again and again, as daemons do, by a clock that is `aheadMs` ahead. */
  async keepPublishing(state: Partial<TwinStream>, { aheadMs = 0 } = {}): Promise<void> {
    const tell = () => this.publish(state, new Date(Date.now() + aheadMs));
    this.stopPublishing();
    await tell();
    this.#telling = setInterval(() => tell().catch(() => {}), 500);
  }

  stopPublishing(): void {
    clearInterval(this.#telling);
  }

  /** Leads the stream, and saves a cursor. */
  async lead(): Promise<void> {
    const leadership = await this.coordination.elector('orders').campaign(this.#leaving.signal);
    const position = { origin: 'o', incarnation: 'i', segment: 'binlog.000003', offset: 4711, id: '0-1-52' };
    const place = { archive: 'a', stream: 'orders', term: 3, slot: 7, digest: 'd'.repeat(64) };
    await this.coordination.cursors.save({ ...place, position, time: new Date().toISOString() }, leadership);
    await this.publish({ role: 'master', reason: 'master' });
  }

  async leave(): Promise<void> {
    this.stopPublishing();
    this.#leaving.abort(new Error('the test is over'));
    await this.coordination.close();
  }

  async #answer(answer: Answer): Promise<void> {
    const { requests } = this.coordination;
    for await (const pending of requests.watch('orders', this.#leaving.signal)) {
      this.asked.push(pending.request);
      await requests.answer(pending, answer);
    }
  }
}
