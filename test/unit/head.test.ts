import { expect, jest, test } from '@jest/globals';
import { headOf } from '../../src/archive/head.ts';
import { openTerm, sealOpenTerm } from '../../src/archive/takeover.ts';
import { type Archive, findEnd } from '../../src/archive/walk.ts';
import type { ChainEnd } from '../../src/core/chain.ts';
import type { Located } from '../../src/source/source.ts';
import { at, emptyArchive, located, retries, ship, writer } from '../helpers/hand-made-archive.ts';

const seal = async (archive: Archive) => sealOpenTerm(archive, await findEnd(archive, null), writer(), retries);
async function open(archive: Archive, change: Partial<Located> = {}): Promise<ChainEnd> {
  const by = writer();
  const sealed = await sealOpenTerm(archive, await findEnd(archive, null), by, retries);
  return openTerm(archive, sealed, by, { ...located, ...change }, retries);
}

test('the ends of logs that were left by forks are known, newest first, whatever came between', async () => {
  const { archive } = emptyArchive();
  await ship(archive, await open(archive), 5);
  await ship(archive, await open(archive, { result: 'fork', at: at(2) }), 2);
  await open(archive, { at: at(4) });
  await seal(archive); // a term that is never opened
  await ship(archive, await open(archive, { at: at(4) }), 3);
  const end = await ship(archive, await open(archive, { result: 'fork', at: at(6) }), 40);

  const head = (await headOf(archive, end))!;
  const reading = jest.spyOn(archive.store, 'read');
  const left: number[] = [];
  for await (const { offset } of head.left()) left.push(offset);
  expect(left).toEqual([7, 5]);
  expect(reading.mock.calls.length).toBeLessThan(20);

  // A standby asks twice a second.
  reading.mockClear();
  const again: number[] = [];
  for await (const { offset } of (await headOf(archive, await ship(archive, end, 1)))!.left()) again.push(offset);
  expect(again).toEqual(left);
  expect(reading.mock.calls.length).toBeLessThan(3);
});

test('where the log last began anew is known, whatever came after', async () => {
  const { archive } = emptyArchive();
  const anew = async () => (await headOf(archive, await findEnd(archive, null)))!.anew();
  await ship(archive, await open(archive), 5);
  expect(await anew()).toBeNull();
  await ship(archive, await open(archive, { result: 'reset', at: at(0) }), 2);
  expect(await anew()).toEqual(at(0));
  await ship(archive, await open(archive, { at: at(2) }), 3);
  expect(await anew()).toEqual(at(0));
});
