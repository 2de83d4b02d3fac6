import { afterAll, expect, test } from '@jest/globals';
import { openBlockPool } from '../../src/codec/blocks.ts';
import { openEncoder } from '../../src/codec/encoder.ts';
import { chainStart, decodeArchiveFile, encodeArchiveFile } from '../../src/core/archive.ts';
import { type ChainEnd, endAfter } from '../../src/core/chain.ts';
import { encodeHeader, type Opening } from '../../src/core/header.ts';
import { placeKey } from '../../src/core/keys.ts';
import type { Position } from '../../src/core/position.ts';
import { messageOf } from '../../src/errors.ts';
import type { Cut } from '../../src/ship/chunker.ts';
import { UploadWindow } from '../../src/ship/window.ts';
import { type Fault, FaultyStore, Gate } from '../fakes/faulty-store.ts';
import { MemoryStore } from '../fakes/memory-store.ts';
import { until } from '../helpers/wait.ts';

const STREAM = 'orders';
const WINDOW = 4;
const writer = { claim: 'mine', node: 'a', now: () => new Date(0) };
const info = decodeArchiveFile(
  encodeArchiveFile({
    v: 1,
    archive: 'archive-1',
    stream: STREAM,
    cluster: 'test',
    owner: writer.claim,
    node: 'a',
    identity: { type: 'fake', name: null },
    window: WINDOW,
    created: '2026-01-01T00:00:00.000Z',
  }),
  'test',
);
const at = (offset: number): Position => ({ origin: 'o', incarnation: 'i', segment: 's.1', offset, id: '' });
const pool = openBlockPool({ blockBytes: 64, maxBytes: 64 * 64 });
const encoder = openEncoder();
afterAll(() => encoder.close());

/** A window right after an opening, over a store whose creations wait for a gate each. */
function newWindow() {
  const memory = new MemoryStore();
  const gates = new Map<string, Gate>();
  const faults = new Map<string, Fault>();
  const store = new FaultyStore(memory, (operation, key) => {
    if (operation !== 'create') return undefined;
    const gate = new Gate();
    gates.set(key, gate);
    return faults.get(key) ?? { kind: 'delay', until: gate.opened };
  });
  const begun = () => [...gates.keys()].map((key) => Number.parseInt(key.slice(-10), 16));
  const land = (slot: number) => gates.get(placeKey(STREAM, { term: 1, slot }))?.open();
  const settled: number[] = [];
  const failures: unknown[] = [];
  const ending = new AbortController();
  const window = new UploadWindow(opened(), {
    archive: { store, info },
    writer,
    encoder,
    upload: { signal: ending.signal, maxMs: 0 },
    onSettled: ({ slot }) => settled.push(slot),
    onFailure: (error) => failures.push(error),
  });
  return { window, memory, faults, begun, land, settled, failures, ending };
}

function opened(): ChainEnd {
  const { archive, stream, term, slot, digest: prev, owner } = chainStart(info);
  const opening: Opening = {
    v: 1,
    archive,
    stream,
    term,
    slot,
    claim: owner,
    prev,
    node: 'a',
    time: '2026-01-01T00:00:00.000Z',
    kind: 'opening',
    at: at(0),
    result: 'start',
    evidence: {},
    previous: null,
  };
  const { frame, digest } = encodeHeader(opening);
  return endAfter({ header: opening, digest, payloadOffset: frame.length });
}

async function cutAt(from: number): Promise<Cut> {
  const block = await pool.acquire(new AbortController().signal);
  return {
    from: at(from),
    to: at(from + 1),
    block,
    length: 1,
    endsSegment: false,
    openTransaction: false,
    firstEventMs: null,
    lastEventMs: null,
    readAtMs: 0,
  };
}

async function fill({ window }: ReturnType<typeof newWindow>): Promise<number> {
  let count = 0;
  for (; window.hasRoom && count < 2 * WINDOW; count++) window.submit(await cutAt(count));
  return count;
}

test('rule 6: no slot is begun W or more above the lowest unsettled one, however many others have landed', async () => {
  const open = newWindow();
  expect(await fill(open)).toBe(WINDOW);
  await until('all are under way', () => open.begun().length === WINDOW);
  for (const slot of [2, 3, 4]) open.land(slot);
  await until('they have landed', () => open.memory.keys().length === 3);
  expect(open.window.hasRoom).toBe(false);
  expect(open.settled).toEqual([]);
  expect(open.window.settled.slot).toBe(1);
  open.land(1);
  await open.window.drained();
  expect(open.settled).toEqual([1, 2, 3, 4]);
  expect(open.window.settled).toMatchObject({ slot: 5, position: at(4) });
  expect(open.window.hasRoom).toBe(true);
});

test('rule 6: another object in one slot ends the window, though a lower slot is still under way', async () => {
  const open = newWindow();
  const other = encodeHeader({ ...lastHeaderOf(open.window.settled), kind: 'seal', at: at(0), previous: null });
  open.memory.overwrite(placeKey(STREAM, { term: 1, slot: 3 }), other.frame);
  await fill(open);
  await until('slot 3 is under way', () => open.begun().includes(3));
  open.land(3);
  await until('the window has failed', () => open.failures.length > 0);
  expect(open.failures).toMatchObject([{ code: 'DEPOSED' }]);
  await expect(open.window.room()).rejects.toMatchObject({ code: 'DEPOSED' });
  open.ending.abort(open.failures[0]);
  open.land(1);
  expect(open.settled).toEqual([]);
});

test('an attempt that fails without a word is made again with the same bytes', async () => {
  const open = newWindow();
  const key = placeKey(STREAM, { term: 1, slot: 1 });
  const gate = new Gate();
  open.faults.set(key, { kind: 'late', until: gate.opened });
  open.window.submit(await cutAt(0));
  await until('it was tried', () => open.begun().length > 0);
  open.faults.clear();
  gate.open();
  await until('the late write has landed', () => open.memory.keys().includes(key));
  open.land(1);
  await open.window.drained();
  expect(open.settled).toEqual([1]);
  expect(open.failures).toEqual([]);
});

test('a chunk that readers would refuse is not stored', async () => {
  const open = newWindow();
  open.window.submit(await cutAt(0));
  open.window.submit(await cutAt(7));
  await until('the window has failed', () => open.failures.length > 0);
  expect(messageOf(open.failures[0])).toContain('starts at s.1:7, but the chunk before ended at s.1:1');
  open.land(1);
  await until('the first one has landed', () => open.memory.keys().length > 0);
  expect(open.begun()).toEqual([1]);
});

function lastHeaderOf({ archive, stream, term, digest }: ChainEnd) {
  return { v: 1, archive, stream, term, slot: 3, claim: 'other', prev: digest, node: 'b', time: '' } as const;
}
