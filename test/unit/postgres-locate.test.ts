import { afterEach, describe, expect, test } from '@jest/globals';
import { witnessDigest } from '../../src/core/witness.ts';
import { ShipmateError } from '../../src/errors.ts';
import { Shipping } from '../contract/source-shipping.ts';
import { WalServer } from '../helpers/wal-servers.ts';
import { reign } from '../helpers/wal-shipping.ts';

const servers: WalServer[] = [];
const SEGMENT_BYTES = 1 << 20;

/** A primary with a few segments of WAL. */
function primary(): WalServer {
  const server = WalServer.primary({ segmentBytes: SEGMENT_BYTES });
  servers.push(server);
  for (let i = 0; i < 3; i++) server.transaction({ bytes: 500_000 });
  return server;
}

function standbyOf(server: WalServer, upTo?: bigint): WalServer {
  const standby = server.standby(upTo);
  servers.push(standby);
  return standby;
}

/** By digest: a diff of megabytes takes seconds. */
function expectSame(shipped: Map<string, Buffer>, name: string, bytes: Buffer): void {
  const found = shipped.get(name) ?? Buffer.alloc(0);
  expect([name, found.length, witnessDigest(found)]).toEqual([name, bytes.length, witnessDigest(bytes)]);
}

const results = (answers: readonly { result: string }[]) => answers.map(({ result }) => result);

afterEach(() => {
  for (const server of servers.splice(0)) server.remove();
});

describe('a standby of the server that is shipped', () => {
  test('goes on where the archive ends, as soon as it has got there', async () => {
    const [a, shipping] = [primary(), new Shipping()];
    const b = standbyOf(a);
    const twin = b.open();
    a.transaction();
    await reign(a.open(), shipping);
    expect(await twin.locate(shipping.head())).toMatchObject({ result: 'behind', allowed: false });
    b.receive(a);
    expect(await twin.locate(shipping.head())).toMatchObject({
      result: 'resume',
      allowed: true,
      at: shipping.position,
    });
  });

  test('is behind, however long it stands still, and after its primary was promoted elsewhere', async () => {
    const [a, shipping] = [primary(), new Shipping()];
    const [b, paused] = [standbyOf(a), standbyOf(a)];
    b.promote();
    b.transaction({ bytes: 2_000_000 });
    expect(results(await reign(b.open(), shipping)).at(-1)).toBe('switch');
    const located = await paused.open().locate(shipping.head());
    expect(located).toMatchObject({ result: 'behind', allowed: false });
    expect(located.reason).toContain('timeline 1');
  });

  test('is not ready while its server does not answer', async () => {
    const [a, shipping] = [primary(), new Shipping()];
    await reign(a.open(), shipping);
    const twin = a.open();
    a.failure = new ShipmateError('the server does not answer', { code: 'SERVER_UNREACHABLE', verdict: 'retry' });
    expect(await twin.locate(shipping.head())).toMatchObject({ result: 'behind', allowed: false });
    a.failure = null;
    expect(await twin.locate(shipping.head())).toMatchObject({ result: 'resume', allowed: true });
  });
});

describe('a promotion', () => {
  test('is followed with the history file and the whole first segment', async () => {
    const [a, shipping] = [primary(), new Shipping()];
    const b = standbyOf(a);
    await reign(a.open(), shipping);
    b.promote();
    b.transaction({ bytes: 1_600_000 });
    expect(results(await reign(b.open(), shipping))).toEqual(['switch']);
    const shipped = shipping.contents();
    expect(shipped.get('00000002.history')?.toString()).toBe(b.line.history);
    for (const [name, bytes] of b.contents()) if (name.startsWith('00000002')) expectSame(shipped, name, bytes);
    expect(await b.open().backlog(shipping.position)).toEqual({ bytes: 0, oldestMs: null });
  });

  test('is followed from before it: the rest of the old timeline up to the segment in which it ends', async () => {
    const [a, shipping] = [primary(), new Shipping()];
    await reign(a.open(), shipping);
    a.transaction({ bytes: 2_400_000 });
    const b = standbyOf(a);
    b.promote();
    b.transaction();
    const twin = b.open();
    const { bytes } = await twin.backlog(shipping.position);
    const before = shipping.chunks.length;
    expect(results(await reign(twin, shipping))).toEqual(['resume', 'switch']);
    expect(shipping.chunks.slice(before).reduce((sum, { length }) => sum + length, 0)).toBe(bytes);
    const shipped = shipping.contents();
    const switchSegment = [...b.contents().keys()].filter((name) => name.startsWith('00000001')).at(-1);
    for (const [name, expected] of b.contents()) {
      if (name < switchSegment! || name.startsWith('00000002')) expectSame(shipped, name, expected);
    }
  });

  test('of the server that is being read ends the term, and the next one begins with the new timeline', async () => {
    const [a, shipping] = [primary(), new Shipping()];
    const b = standbyOf(a);
    const twin = b.open();
    await reign(twin, shipping);
    b.promote();
    b.transaction();
    expect(results(await reign(twin, shipping))).toEqual(['switch']);
  });

  test('several of them are followed one after the other, each with its history file', async () => {
    const [a, shipping] = [primary(), new Shipping()];
    await reign(a.open(), shipping);
    const b = standbyOf(a);
    b.promote();
    const c = standbyOf(b);
    c.promote();
    c.transaction({ bytes: 1_600_000 });
    const d = standbyOf(c);
    d.promote(7);
    expect(results(await reign(d.open(), shipping))).toEqual(['switch', 'switch', 'switch']);
    const names = [...shipping.contents().keys()].filter((name) => name.endsWith('.history'));
    expect(names).toEqual(['00000002.history', '00000003.history', '00000007.history']);
  });

  test('after which the old primary wrote on, leaves its tail dead and never goes back to it', async () => {
    const [a, shipping] = [primary(), new Shipping()];
    const b = standbyOf(a);
    a.transaction({ bytes: 1_600_000 });
    await reign(a.open(), shipping);
    b.promote();
    expect(results(await reign(b.open(), shipping))).toEqual(['switch']);
    a.transaction();
    expect(await a.open().locate(shipping.head())).toMatchObject({ result: 'fork', allowed: false });
    // Taken for a standby, and promoted with its dead tail, it is no better.
    a.isInRecovery = true;
    expect(await a.open().locate(shipping.head())).toMatchObject({ result: 'behind', allowed: false });
    a.promote(9);
    expect(await a.open().locate(shipping.head())).toMatchObject({ result: 'fork', allowed: false });
    a.rewind(b);
    expect(await a.open().locate(shipping.head())).toMatchObject({ result: 'resume', allowed: true });
  });

  test('starts an archive with its history file, where the timelines before it are not here any more', async () => {
    const a = primary();
    const b = standbyOf(a);
    b.promote();
    for (let i = 0; i < 4; i++) b.transaction({ bytes: 700_000 });
    b.purge({ byForce: true });
    b.transaction({ bytes: 1_300_000 });
    const shipping = new Shipping();
    expect(results(await reign(b.open(), shipping))).toEqual(['start']);
    const [history, ...segments] = shipping.contents().keys();
    expect(history).toBe('00000002.history');
    expect(segments).toEqual(b.segments().sort());
    expect(await b.open().locate(shipping.head())).toMatchObject({ result: 'resume', allowed: true });
  });
});

describe('two promotions apart from each other', () => {
  test('to one number are two incarnations: the archive stays with the one that it is on', async () => {
    const [a, shipping] = [primary(), new Shipping()];
    const b = standbyOf(a);
    a.transaction();
    const c = standbyOf(a);
    await reign(a.open(), shipping);
    b.promote();
    c.promote();
    await reign(b.open(), shipping);
    c.transaction({ bytes: 3_000_000 });
    expect(await c.open().locate(shipping.head())).toMatchObject({ result: 'fork', allowed: false });
    expect(await b.open().locate(shipping.head())).toMatchObject({ result: 'resume', allowed: true });
    await reign(b.open(), shipping);
    expect(shipping.position!.incarnation).not.toBe('');
  });

  test('at one place have equal history files, and equal bytes behind them prove nothing', async () => {
    const [a, shipping] = [primary(), new Shipping()];
    const [b, c] = [standbyOf(a), standbyOf(a)];
    await reign(a.open(), shipping);
    for (const server of [b, c]) {
      server.promote();
      server.transaction({ bytes: 1000 });
    }
    expect(c.line.history).toBe(b.line.history);
    await reign(b.open(), shipping);
    for (const server of [b, c]) server.idle();
    await reign(b.open(), shipping);
    expect(await c.open().locate(shipping.head())).toMatchObject({ result: 'fork', allowed: false });
    expect(await standbyOf(c).open().locate(shipping.head())).toMatchObject({ allowed: false });
    expect(await standbyOf(b).open().locate(shipping.head())).toMatchObject({ result: 'resume', allowed: true });
  });

  test('of which one knew of the other: the later one is taken, and the way back is closed', async () => {
    const [a, shipping] = [primary(), new Shipping()];
    const [b, c] = [standbyOf(a), standbyOf(a)];
    await reign(a.open(), shipping);
    b.promote();
    b.transaction({ bytes: 1_600_000 });
    await reign(b.open(), shipping);
    c.promote(3);
    c.transaction();
    const twin = c.open();
    const [answer] = await reign(twin, shipping);
    expect(answer).toMatchObject({ result: 'fork', allowed: true, at: { segment: '00000003.history', offset: 0 } });
    for (const [name, bytes] of c.contents()) {
      if (name.startsWith('00000003')) expectSame(shipping.contents(), name, bytes);
    }
    expect(await b.open().locate(shipping.head())).toMatchObject({ result: 'fork', allowed: false });
    b.isInRecovery = true;
    b.promote(9);
    expect(await b.open().locate(shipping.head())).toMatchObject({ result: 'fork', allowed: false });
  });

  test('an operator may accept the old primary: the archive goes back to what both have', async () => {
    const [a, shipping] = [primary(), new Shipping()];
    const b = standbyOf(a);
    await reign(a.open(), shipping);
    b.promote();
    b.transaction();
    await reign(b.open(), shipping);
    a.transaction({ bytes: 1_600_000 });
    const twin = a.open();
    const located = await twin.locate(shipping.head());
    expect(located).toMatchObject({ result: 'fork', allowed: false });
    shipping.open(located);
    await shipping.ship(twin);
    const shipped = shipping.contents();
    expect([...shipped.keys()]).toEqual([...a.contents().keys()]);
    for (const [name, bytes] of a.contents()) expectSame(shipped, name, bytes);
    expect(await twin.locate(shipping.head())).toMatchObject({ result: 'resume', allowed: true });
  });
});

test('a server of another cluster goes on with nothing', async () => {
  const [a, shipping] = [primary(), new Shipping()];
  await reign(a.open(), shipping);
  const other = primary();
  const position = { ...shipping.position!, origin: 'postgres-42-1' };
  const located = await other.open().locate({ ...shipping.head(), position });
  expect(located).toMatchObject({ result: 'gap', allowed: false });
});

test('an answer that was asked before the archive moved on makes no fork', async () => {
  const [a, shipping] = [primary(), new Shipping()];
  const stale = { ...(await a.ask()) };
  const twin = a.open();
  a.transaction();
  await reign(a.open(), shipping);
  const ask = a.ask.bind(a);
  let asked = 0;
  a.ask = async () => (asked++ === 0 ? stale : ask());
  expect(await twin.locate(shipping.head())).toMatchObject({ result: 'resume', allowed: true });
});
