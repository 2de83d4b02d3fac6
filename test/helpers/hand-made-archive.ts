import { newClaim, openTerm, sealOpenTerm } from '../../src/archive/takeover.ts';
import { type Archive, findEnd } from '../../src/archive/walk.ts';
import { decodeArchiveFile, encodeArchiveFile } from '../../src/core/archive.ts';
import type { ChainEnd } from '../../src/core/chain.ts';
import { type Chunk, encodeHeader, type Opening, type Seal } from '../../src/core/header.ts';
import { placeKey, streamKey } from '../../src/core/keys.ts';
import type { Position } from '../../src/core/position.ts';
import { MemoryStore } from '../fakes/memory-store.ts';

export const STREAM = 'orders';
const signal = new AbortController().signal;
export const retries = { signal, maxMs: 0 };
const file = encodeArchiveFile({
  v: 1,
  archive: 'archive-1',
  stream: STREAM,
  cluster: 'test',
  owner: 'claim-of-init',
  node: 'a',
  identity: { type: 'fake', name: null },
  window: 4,
  created: '2026-01-01T00:00:00.000Z',
});
export const info = decodeArchiveFile(file, 'test');
export const at = (offset: number): Position => ({
  origin: 'o',
  incarnation: 'i',
  segment: 's.1',
  offset,
  id: `0-1-${offset}`,
});
export const located = { result: 'resume', at: at(0), allowed: true, reason: 'a test', evidence: {} } as const;
export const writer = (node = 'a') => ({ claim: newClaim(), node, now: () => new Date(0) });

/** An archive that a test writes object by object, without a source or a daemon: of no object yet. */
export function emptyArchive(): { memory: MemoryStore; archive: Archive } {
  const memory = new MemoryStore();
  memory.overwrite(streamKey(STREAM), file);
  return { memory, archive: { store: memory, info } };
}

/** Seals the open term and opens the next, as `by`. */
export async function takeOver(archive: Archive, by = writer()): Promise<ChainEnd> {
  const sealed = await sealOpenTerm(archive, await findEnd(archive, null), by, retries);
  return openTerm(archive, sealed, by, located, retries);
}

/** Writes `count` chunks of a byte each after `end`, as the owner of its term. */
export async function ship(archive: Archive, end: ChainEnd, count: number): Promise<ChainEnd> {
  let { digest, slot } = end;
  let from = end.position?.offset ?? 0;
  for (let n = 0; n < count; n++) {
    const encoded = encodeHeader(chunkAt({ ...end, digest, slot }, from));
    await archive.store.create(placeKey(STREAM, { term: end.term, slot }), encoded.frame, signal);
    digest = encoded.digest;
    slot++;
    from++;
  }
  return findEnd(archive, null);
}

export const chunkAt = (end: ChainEnd, from: number): Chunk => ({
  v: 1,
  archive: info.archive,
  stream: STREAM,
  term: end.term,
  slot: end.slot,
  claim: end.owner,
  prev: end.digest,
  node: 'a',
  time: '2026-01-01T00:00:00.000Z',
  kind: 'chunk',
  from: at(from),
  to: at(from + 1),
  length: 1,
  endsSegment: false,
  openTransaction: false,
  firstEventMs: null,
  lastEventMs: null,
  witness: 'w',
  codec: 'zstd',
  stored: { bytes: 0, sha256: '' },
});

export const openingAt = ({ archive, stream, term, digest: prev }: ChainEnd): Opening => ({
  v: 1,
  archive,
  stream,
  term,
  slot: 0,
  claim: 'a claim',
  prev,
  node: 'a',
  time: '2026-01-01T00:00:00.000Z',
  kind: 'opening',
  at: at(0),
  result: 'resume',
  evidence: {},
  previous: null,
});

export const sealAt = ({ archive, stream, term, slot, digest: prev, position, last: previous }: ChainEnd): Seal => ({
  v: 1,
  archive,
  stream,
  term,
  slot,
  claim: 'a claim',
  prev,
  node: 'a',
  time: '2026-01-01T00:00:00.000Z',
  kind: 'seal',
  at: position,
  previous,
});

/** What etcd would hold. */
export const cursorAt = ({ last, digest }: ChainEnd) => ({ ...last!, digest });
