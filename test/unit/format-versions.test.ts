import { buffer } from 'node:stream/consumers';
import { describe, expect, test } from '@jest/globals';
import { readArchive } from '../../src/archive/identity.ts';
import { sealOpenTerm } from '../../src/archive/takeover.ts';
import { type Archive, findEnd, readFloor } from '../../src/archive/walk.ts';
import { readTwin } from '../../src/coordination/formats.ts';
import type { ChainEnd } from '../../src/core/chain.ts';
import { encodeFloor } from '../../src/core/floor.ts';
import { decodeHeader, encodeHeader, FORMAT_VERSION } from '../../src/core/header.ts';
import { floorKey, placeKey, streamKey } from '../../src/core/keys.ts';
import type { MemoryStore } from '../fakes/memory-store.ts';
import { chunkAt, emptyArchive, retries, STREAM, ship, takeOver, writer } from '../helpers/hand-made-archive.ts';

/** What docs/compatibility.md promises of formats that this version does not know. */

const NEWER = FORMAT_VERSION + 1;

/** A JSON header with fields changed, as the bytes of an object. */
function altered(frame: Buffer, change: Record<string, unknown>): Buffer {
  const json = Buffer.from(JSON.stringify({ ...JSON.parse(frame.subarray(8).toString()), ...change }));
  const head = Buffer.from(frame.subarray(0, 8));
  head.writeUInt32LE(json.length, 4);
  return Buffer.concat([head, json]);
}

const chunkFrame = (end: ChainEnd, change: Record<string, unknown>) =>
  altered(encodeHeader(chunkAt(end, end.position!.offset)).frame, change);

/** An archive with an open term, in whose next slot an object stands that was changed so. */
async function archiveWith(
  change: Record<string, unknown>,
): Promise<{ memory: MemoryStore; archive: Archive; end: ChainEnd }> {
  const { memory, archive } = emptyArchive();
  const end = await ship(archive, await takeOver(archive), 2);
  memory.overwrite(placeKey(STREAM, end), chunkFrame(end, change));
  return { memory, archive, end };
}

const newerFormat = (what: string) => ({
  code: 'NEWER_FORMAT',
  message: `${what} is of format ${NEWER}, and this Shipmate reads formats up to ${FORMAT_VERSION}`,
  hint: expect.stringContaining('a newer Shipmate wrote it'),
});

describe('a field that this version does not know', () => {
  test('is passed over, and stays in the digest that the next header names', async () => {
    const { archive, end } = await archiveWith({ colour: 'blue' });
    const after = await findEnd(archive, null);
    expect(after.slot).toBe(end.slot + 1);
    const further = await ship(archive, after, 1);
    expect(further.slot).toBe(end.slot + 2);
  });

  test('and a role, of a newer twin: it is seen all the same', () => {
    const stream = { name: STREAM, role: 'juggling', ready: true, reason: '', lagBytes: 0, lagSeconds: 0, config: 'c' };
    const twin = { node: 'b', version: '9.0.0', format: NEWER, time: 'now', streams: [{ ...stream, hat: 'red' }] };
    const read = readTwin(JSON.stringify({ instance: 'i', twin }));
    expect(read?.twin).toMatchObject({ node: 'b', format: NEWER, streams: [{ role: 'starting', ready: true }] });
  });
});

describe('an object of a newer format', () => {
  const change = { v: NEWER, kind: 'novelty', from: undefined };

  test('stops whoever meets it, with a message that says so', async () => {
    const { archive, end } = await archiveWith(change);
    await expect(findEnd(archive, null)).rejects.toMatchObject(newerFormat(`object ${placeKey(STREAM, end)}`));
  });

  test('is never sealed over by a daemon that can’t read it', async () => {
    const { memory, archive, end } = await archiveWith(change);
    const keys = await allKeys(memory);
    await expect(sealOpenTerm(archive, end, writer(), retries)).rejects.toMatchObject({ code: 'NEWER_FORMAT' });
    expect(await allKeys(memory)).toEqual(keys);
  });

  test('is told from one that is damaged, or of a kind that no format has', async () => {
    const { end } = await archiveWith({});
    for (const bad of [{ kind: 'novelty' }, { v: 'two' }, { v: 0 }, { slot: -1 }]) {
      expect(() => decodeHeader(chunkFrame(end, bad), 'key')).toThrow(expect.objectContaining({ code: 'BAD_OBJECT' }));
    }
  });

  test('as stream.json is not taken for another archive, or none', async () => {
    const { memory, archive } = emptyArchive();
    const file: object = JSON.parse((await buffer(await memory.read(streamKey(STREAM)))).toString());
    memory.overwrite(streamKey(STREAM), Buffer.from(JSON.stringify({ ...file, v: NEWER, owner: undefined })));
    const what = `${streamKey(STREAM)} in store ${memory.name}`;
    await expect(readArchive(archive.store, STREAM)).rejects.toMatchObject(newerFormat(what));
  });

  test('as a floor is not passed over: below it nothing is whole', async () => {
    const { memory, archive } = emptyArchive();
    const end = await ship(archive, await takeOver(archive), 1);
    const key = floorKey(STREAM, end);
    memory.overwrite(key, Buffer.from(JSON.stringify({ ...JSON.parse(encodeFloor(end).toString()), v: NEWER })));
    await expect(readFloor(archive)).rejects.toMatchObject(newerFormat(`object ${key}`));
  });
});

async function allKeys(memory: MemoryStore): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of memory.list('')) keys.push(key);
  return keys;
}
