import { randomUUID } from 'node:crypto';
import type { Answer, OperatorRequest, PendingRequest, RequestBoard } from '../coordination.ts';
import { type KeptRequest, readRequest } from '../formats.ts';
import type { BoardOptions } from './boards.ts';
import { follow } from './follow.ts';
import { transact } from './kv.ts';

/** What is left behind when the asker dies goes so much later than its deadline, seconds. */
const LINGER_S = 60;

export class EtcdRequests implements RequestBoard {
  readonly #options: BoardOptions;

  constructor(options: BoardOptions) {
    this.#options = options;
  }

  async ask(stream: string, request: OperatorRequest, timeoutMs: number): Promise<Answer | null> {
    const { client, keys, log } = this.#options;
    const key = `${keys.requests(stream)}${randomUUID()}`;
    const kept: KeptRequest = { request };
    const ttl = Math.ceil(timeoutMs / 1_000) + LINGER_S;
    const { ID: lease } = await client.call(({ etcd, options }) => etcd.leaseClient.leaseGrant({ TTL: ttl }, options));
    try {
      const put = { key: Buffer.from(key), value: Buffer.from(JSON.stringify(kept)), lease };
      await client.call(({ etcd, options }) => etcd.kv.put(put, options));
      for await (const [entry] of follow({ client, range: { key }, signal: AbortSignal.timeout(timeoutMs), log })) {
        if (!entry) break;
        const answer = readRequest(entry.value)?.answer;
        if (answer) return answer;
      }
      return await this.#takeBack(key);
    } finally {
      await client.call(({ etcd, options }) => etcd.leaseClient.leaseRevoke({ ID: lease }, options)).catch(() => {});
    }
  }

  async *watch(stream: string, signal: AbortSignal): AsyncGenerator<PendingRequest, void, undefined> {
    const { client, keys, log } = this.#options;
    let given = new Set<string>();
    for await (const entries of follow({ client, range: { prefix: keys.requests(stream) }, signal, log })) {
      for (const { key, value } of entries) {
        const kept = readRequest(value);
        if (!given.has(key) && kept && !kept.answer) yield { key, request: kept.request };
      }
      given = new Set(entries.map(({ key }) => key));
    }
  }

  /** The first answer stands; one that comes after the asker has gone is dropped. */
  async answer({ key, request }: PendingRequest, answer: Answer): Promise<void> {
    const kept: KeptRequest = { request, answer };
    const put = { key: Buffer.from(key), value: Buffer.from(JSON.stringify(kept)), ignore_lease: true };
    await transact(this.#options.client, {
      compare: [{ key: put.key, target: 'Version', result: 'Equal', version: 1 }],
      success: [{ request_put: put }],
    });
  }

  /** Deletes the request; if an answer came at the last moment, it counts. */
  async #takeBack(key: string): Promise<Answer | null> {
    const request = { key: Buffer.from(key), prev_kv: true };
    const { prev_kvs } = await this.#options.client.call(({ etcd, options }) => etcd.kv.deleteRange(request, options));
    return readRequest(prev_kvs[0]?.value.toString() ?? null)?.answer ?? null;
  }
}
