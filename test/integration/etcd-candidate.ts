import { setTimeout as delay } from 'node:timers/promises';
import type { Cursor, Leadership } from '../../src/coordination/coordination.ts';
import { openEtcd } from '../../src/coordination/etcd.ts';
import { Deposed } from '../../src/errors.ts';

/**
 * A daemon reduced to its coordination: campaigns again and again, and while elected saves cursors as fast as it can,
 * each with the revision of the leadership that it is saved under as its digest. Tells what happens in JSON lines.
 */
const [endpoints = '', cluster = '', node = '', ttlMs = ''] = process.argv.slice(2);
const tell = (event: string, facts: object = {}) => process.stdout.write(`${JSON.stringify({ event, ...facts })}\n`);
const ASLEEP_MS = 300;

const say = (message: string) => process.stderr.write(`${message}\n`);
const coordination = await openEtcd({
  cluster,
  node,
  endpoints: endpoints.split(','),
  ttlMs: Number(ttlMs),
  onEtcdLoss: 'continue',
  log: { debug() {}, info: say, warn: say, error: say },
});
process.on('SIGTERM', async () => {
  await coordination.close();
  process.exit(0);
});

for (;;) {
  const leadership = await coordination.elector('orders').campaign(new AbortController().signal);
  tell('elected', { revision: String(leadership.revision) });
  await reign(leadership);
  tell('deposed', { revision: String(leadership.revision) });
}

async function reign(leadership: Leadership): Promise<void> {
  let lastMs = performance.now();
  const lookAtClock = () => {
    const nowMs = performance.now();
    if (nowMs - lastMs > ASLEEP_MS) tell('woke', { confirmed: leadership.confirmed() });
    lastMs = nowMs;
  };
  for (let slot = 0; !leadership.signal.aborted; slot++) {
    try {
      await coordination.cursors.save(cursor(slot, leadership), leadership);
      lookAtClock();
      if (slot === 0) tell('saved');
    } catch (error) {
      lookAtClock();
      if (error instanceof Deposed) return;
    }
    await delay(2);
    lookAtClock();
  }
}

function cursor(slot: number, { revision }: Leadership): Cursor {
  const time = new Date().toISOString();
  return { archive: 'a', stream: 'orders', term: 1, slot, digest: String(revision), position: null, time };
}
