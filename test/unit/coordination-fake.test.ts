import { expect, test } from '@jest/globals';
import { Deposed } from '../../src/errors.ts';
import { cursorAt, twinOf } from '../contract/coordination.contract.ts';
import { MemoryHub } from '../fakes/memory-coordination.ts';

const never = new AbortController().signal;

test('cut off, its lease run out: the twin leads, the old leader learns of it when it is back', async () => {
  const hub = new MemoryHub();
  const [a, b] = [hub.client('a'), hub.client('b')];
  const old = await a.elector('orders').campaign(never);
  const next = b.elector('orders').campaign(never);
  a.cutOff();
  expect(old.confirmed()).toBe(true);
  await expect(a.cursors.save(cursorAt(1), old)).rejects.toMatchObject({ code: 'ETCD_UNREACHABLE', verdict: 'retry' });
  hub.expire('a');
  expect(old.confirmed()).toBe(false);
  const leadership = await next;
  expect(leadership.revision).toBeGreaterThan(old.revision);
  expect(old.signal.aborted).toBe(false);

  a.heal();
  expect(old.signal.reason).toBeInstanceOf(Deposed);
  await expect(a.cursors.save(cursorAt(1), old)).rejects.toThrow(Deposed);
  const again = a.elector('orders').campaign(never);
  await leadership.resign();
  expect((await again).confirmed()).toBe(true);
});

test('cut off for less than its lease it leads on', async () => {
  const hub = new MemoryHub();
  const a = hub.client('a');
  const leadership = await a.elector('orders').campaign(never);
  a.cutOff();
  a.runOut();
  expect(leadership.confirmed()).toBe(false);
  a.heal();
  expect(leadership.confirmed()).toBe(true);
  await a.cursors.save(cursorAt(1), leadership);
});

test('a resignation while cut off is heard afterwards', async () => {
  const hub = new MemoryHub();
  const [a, b] = [hub.client('a'), hub.client('b')];
  const old = await a.elector('orders').campaign(never);
  const next = b.elector('orders').campaign(never);
  a.cutOff();
  await old.resign();
  expect((await b.overview()).streams).toMatchObject([{ master: 'a' }]);
  a.heal();
  await next;
  expect((await b.overview()).streams).toMatchObject([{ master: 'b' }]);
});

test('with onEtcdLoss: stop the leadership ends with its clock', async () => {
  const a = new MemoryHub().client('a', { onEtcdLoss: 'stop' });
  const leadership = await a.elector('orders').campaign(never);
  a.runOut();
  expect(leadership.signal.reason).toMatchObject({ code: 'LEASE_RAN_OUT' });
});

test('wiped, nothing is left and everybody starts over', async () => {
  const hub = new MemoryHub();
  const a = hub.client('a');
  const old = await a.elector('orders').campaign(never);
  await a.twins.publish(twinOf('a'));
  await a.cursors.save(cursorAt(1), old);
  hub.wipe();
  expect(old.signal.reason).toBeInstanceOf(Deposed);
  expect(await a.overview()).toEqual({ streams: [], twins: [] });
  const leadership = await a.elector('orders').campaign(never);
  expect(leadership.revision).toBe(1n);
  await expect(a.cursors.save(cursorAt(2), old)).rejects.toThrow(Deposed);
});
