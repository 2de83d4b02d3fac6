import type { ICompare, IKeyValue, ITxnRequest, ITxnResponse } from 'etcd3';
import type { Client } from './client.ts';

/** One key, or all that begin with a prefix. */
export type Range = { readonly key: string } | { readonly prefix: string };

export interface Entry {
  readonly key: string;
  readonly value: string;
  readonly createRevision: bigint;
  readonly modRevision: bigint;
  /** Decimal, as etcd3 gives it; `0`: none. */
  readonly lease: string;
}

/** What stands in a range now, by a linearizable read, in key order. */
export async function list(client: Client, range: Range, timeoutMs?: number): Promise<Entry[]> {
  const { kvs } = await client.call(({ etcd, options }) => etcd.kv.range(rangeRequest(range), options), timeoutMs);
  return kvs.map(toEntry);
}

export function transact(client: Client, request: ITxnRequest, timeoutMs?: number): Promise<ITxnResponse> {
  return client.call(({ etcd, options }) => etcd.kv.txn(request, options), timeoutMs);
}

/** Conditions of a transaction. */
export const isAbsent = (key: string) => wasCreatedAt(key, 0n);
export function wasCreatedAt(key: string, revision: bigint): ICompare {
  return { key: Buffer.from(key), target: 'Create', result: 'Equal', create_revision: String(revision) };
}
export function wasChangedAt(key: string, revision: bigint): ICompare {
  return { key: Buffer.from(key), target: 'Mod', result: 'Equal', mod_revision: String(revision) };
}
export function isUnder(key: string, lease: string): ICompare {
  return { key: Buffer.from(key), target: 'Lease', result: 'Equal', lease };
}

/** Of one key it must not hold even an empty end: etcd would take that for 'and all after it'. */
export function rangeRequest(range: Range): { key: Buffer; range_end?: Buffer } {
  if ('key' in range) return { key: Buffer.from(range.key) };
  const end = Buffer.from(range.prefix);
  end[end.length - 1]! += 1; // prefixes end with "/", so nothing is carried
  return { key: Buffer.from(range.prefix), range_end: end };
}

export function toEntry(kv: IKeyValue): Entry {
  return {
    key: kv.key.toString(),
    value: kv.value.toString(),
    createRevision: BigInt(kv.create_revision),
    modRevision: BigInt(kv.mod_revision),
    lease: kv.lease,
  };
}
