import { describe, expect, test } from '@jest/globals';
import type { ServerState } from '../../src/source/mariadb/server.ts';
import type { Head } from '../../src/source/source.ts';
import { archiveOf, LIVING, REPLICA, server, twinAt } from '../helpers/server-twin.ts';

describe('a fork to a replica that was promoted before it had all', () => {
  test('is taken where the server is proven to live, from the last common chunk on', async () => {
    const archive = await archiveOf(server(1), ['0-1-1', '0-1-2 0-1-3', '0-1-4 0-1-5', '0-1-6']);
    const promoted = server(2).apply('0-1-1 0-1-2 0-1-3 0-1-4');
    const twin = twinAt(promoted);
    expect(await twin(archive.head(), REPLICA)).toMatchObject({ result: 'behind', allowed: false });
    expect(await twin(archive.head(), LIVING)).toMatchObject({ result: 'behind', allowed: false });
    promoted.apply('0-2-5');
    const located = await twin(archive.head(), LIVING);
    expect(located).toMatchObject({
      result: 'fork',
      allowed: true,
      at: { origin: 'mariadb-2', id: '0-1-3' },
      common: { origin: 'mariadb-1', id: '0-1-3' },
      reason: 'it went its own way: after 0-1-4 comes 0-2-5 here, 0-1-5 in the archive',
      evidence: {
        server: { serverId: 2, isWritable: true, isReplicating: false },
        divergences: [{ last: '0-1-4', archived: '0-1-5', here: '0-2-5' }],
        fileStart: expect.any(String),
        gtids: '0-1-3',
      },
    });
    // It has passed the archive's end by number.
    promoted.apply('0-2-6 0-2-7 0-2-8');
    expect(await twin(archive.head(), LIVING)).toMatchObject({ result: 'fork', allowed: true, at: { id: '0-1-3' } });
  });

  test.each<[string, Partial<ServerState> | null, string]>([
    ['nobody tells', null, 'was not asked'],
    ['the user may not see replication', { isWritable: true, isReplicating: null }, 'replicates'],
    ['it replicates', { isWritable: true, isReplicating: true, slavePosition: '0-2-9' }, 'replicates'],
    ['it is read-only', { isWritable: false, isReplicating: false }, 'read-only'],
  ])('is not taken where %s, but an operator may', async (_, facts, why) => {
    const archive = await archiveOf(server(1), ['0-1-1', '0-1-2']);
    const located = await twinAt(server(2).apply('0-1-1 0-2-2 0-2-3'))(archive.head(), facts);
    expect(located).toMatchObject({ result: 'fork', allowed: false, reason: expect.stringContaining(why) });
    expect(located).toMatchObject({ at: { id: '0-1-1' }, common: { id: '0-1-1' } });
  });

  test('a server that is merely behind is never a fork, living or not', async () => {
    const archive = await archiveOf(server(1), ['0-1-1', '0-1-2', '0-1-3']);
    for (const facts of [LIVING, REPLICA, null]) {
      expect(await twinAt(server(2).apply('0-1-1 0-1-2'))(archive.head(), facts)).toMatchObject({ result: 'behind' });
    }
  });

  test('numbers that are missing here prove nothing: a backup may have brought what is between', async () => {
    const archive = await archiveOf(server(1), ['0-1-1', '0-1-2 0-1-3 0-1-4']);
    const located = await twinAt(server(2).apply('0-1-1 0-2-4 0-2-5'))(archive.head(), LIVING);
    expect(located).toMatchObject({ result: 'fork', allowed: false, reason: expect.stringContaining('proven') });
  });

  test('without a chunk in common it is a gap', async () => {
    const archive = await archiveOf(server(1), ['0-1-1 0-1-2']);
    const located = await twinAt(server(2).apply('0-1-1 0-2-2'))(archive.head(), LIVING);
    expect(located).toMatchObject({ result: 'gap', allowed: false, reason: expect.stringContaining('no chunk') });
  });

  test('what follows the common point was purged here: a gap', async () => {
    const archive = await archiveOf(server(1), ['0-1-1', '0-1-2']);
    const here = server(2).apply('0-1-1 0-2-2').rotate().apply('0-2-3').purge();
    expect(await twinAt(here)(archive.head(), LIVING)).toMatchObject({ result: 'gap', allowed: false });
  });

  test('a contradiction in one domain counts while another is behind', async () => {
    const archive = await archiveOf(server(1), ['0-1-1 1-1-1', '1-1-2 0-1-2', '1-1-3']);
    const here = server(2).apply('1-1-1 0-1-1 0-2-2');
    expect(await twinAt(here)(archive.head(), LIVING)).toMatchObject({
      result: 'fork',
      allowed: true,
      common: { id: '0-1-1,1-1-1' },
      at: { id: '0-1-1,1-1-1' },
    });
  });
});

describe('a branch that must not turn the archive back', () => {
  test('an old primary that was cut off and writes on, after the archive has moved to the promoted replica', async () => {
    const old = server(1);
    const archive = await archiveOf(old, ['0-1-1', '0-1-2']);
    await archiveOf(server(2).apply('0-1-1 0-1-2 0-2-3'), ['0-2-4'], archive);
    old.apply('0-1-3 0-1-4 0-1-5');
    expect(await twinAt(old)(archive.head(), LIVING)).toMatchObject({
      result: 'fork',
      allowed: false,
      reason: expect.stringContaining('nothing shows that this server was promoted'),
    });
  });

  test('a branch that the archive has left by a fork, also a part of it on another server', async () => {
    const old = server(1);
    const archive = await archiveOf(old, ['0-1-1', '0-1-2', '0-1-3 0-1-4']);
    const promoted = server(2).apply('0-1-1 0-1-2 0-2-3');
    archive.open(await twinAt(promoted)(archive.head(), LIVING));
    await archiveOf(promoted, ['0-2-4'], archive);
    expect(archive.position).toMatchObject({ origin: 'mariadb-2', id: '0-2-4' });
    old.apply('0-1-5');
    expect(await twinAt(old)(archive.head(), LIVING)).toMatchObject({ result: 'fork', allowed: false });
    const third = server(3).apply('0-1-1 0-1-2 0-1-3 0-3-4');
    expect(await twinAt(third)(archive.head(), LIVING)).toMatchObject({ result: 'fork', allowed: false });
  });

  test("a promoted server's branch that an operator has left", async () => {
    const old = server(1);
    const archive = await archiveOf(old, ['0-1-1', '0-1-2']);
    const promoted = server(2).apply('0-1-1 0-2-2');
    archive.open(await twinAt(promoted)(archive.head(), LIVING));
    await archiveOf(promoted, ['0-2-3'], archive);
    archive.open(await twinAt(old)(archive.head(), LIVING));
    await archiveOf(old, ['0-1-3'], archive);
    expect(archive.position).toMatchObject({ origin: 'mariadb-1', id: '0-1-3' });
    const reason = expect.stringContaining('the archive has left this branch before, at 0-2-3');
    expect(await twinAt(promoted)(archive.head(), LIVING)).toMatchObject({ result: 'fork', allowed: false, reason });
    const third = server(3).apply('0-1-1 0-2-2 0-3-3');
    expect(await twinAt(third)(archive.head(), LIVING)).toMatchObject({ result: 'fork', allowed: false });
  });

  test('writes on the promoted server that come from elsewhere are no promotion', async () => {
    const archive = await archiveOf(server(1), ['0-1-1', '0-1-2']);
    const located = await twinAt(server(2).apply('0-1-1 0-3-2'))(archive.head(), LIVING);
    expect(located).toMatchObject({ result: 'fork', allowed: false });
  });
});

describe('writes on a replica', () => {
  test('keep it from taking over, and are named', async () => {
    const archive = await archiveOf(server(1), ['0-1-1', '0-1-2']);
    const replica = server(2).apply('0-1-1 0-1-2 0-2-3 0-2-4');
    const twin = twinAt(replica);
    const facts = { ...REPLICA, slavePosition: '0-1-2' };
    expect(await twin(archive.head(), facts)).toMatchObject({
      result: 'fork',
      allowed: false,
      reason: expect.stringMatching(/^0-2-3 was written on this server, which is a replica: .* promote it/),
    });
    // Nobody says that it was promoted since.
    expect(await twin(archive.head(), facts, null)).toMatchObject({
      result: 'fork',
      allowed: false,
      reason: expect.stringContaining('0-2-3 was written on this server, a replica when it last answered'),
    });
    // Nobody has said yet what it is; a server that is down must not keep its twin from shipping what is left.
    expect(await twinAt(replica, { isSilent: true })(archive.head(), null)).toMatchObject({
      allowed: false,
      reason: '0-2-3 was written on this server, which has not said yet whether it is a replica',
    });
    expect(await twinAt(replica)(archive.head(), null)).toMatchObject({ result: 'move', allowed: true });
    // By the time of the second question it was promoted; or the two replicate from each other.
    for (const asked of [LIVING, { ...facts, isInRing: true }]) {
      expect(await twin(archive.head(), facts, asked)).toMatchObject({ result: 'move', allowed: true });
    }
  });

  test('can not be accepted while it is one: the term would end before them, and leave the other log behind', async () => {
    const archive = await archiveOf(server(1), ['0-1-1', '0-1-2', '0-1-3', '0-1-4']);
    const replica = server(2).apply('0-1-1 0-1-2');
    const twin = twinAt(replica);
    replica.apply('0-2-3');
    const facts = { ...REPLICA, slavePosition: '0-1-2' };
    // Where the archive went on, and where it did not.
    expect(await twin(archive.head(), facts)).toMatchObject({ result: 'fork', allowed: false, at: null });
    const stopped = await archiveOf(server(1), ['0-1-1', '0-1-2']);
    expect(await twinAt(replica)(stopped.head(), facts)).toMatchObject({ result: 'fork', allowed: false, at: null });
    // Promoted, with what was written there: then it is for an operator to say.
    expect(await twinAt(replica)(archive.head(), LIVING)).toMatchObject({
      result: 'fork',
      at: { segment: 'binlog.000001' },
    });
  });

  test('are found when the primary went on with the same numbers', async () => {
    const archive = await archiveOf(server(1), ['0-1-1', '0-1-2']);
    const replica = server(2).apply('0-1-1 0-1-2 0-2-3 0-1-3 0-1-4');
    const facts = { ...REPLICA, slavePosition: '0-1-4' };
    expect(await twinAt(replica)(archive.head(), facts)).toMatchObject({ result: 'fork', allowed: false });
  });

  test('keep also the twin beside it from going on in its own log', async () => {
    const replica = server(2);
    const archive = await archiveOf(replica, ['0-1-1', '0-1-2']);
    replica.apply('0-2-3');
    const facts = { ...REPLICA, slavePosition: '0-1-2' };
    expect(await twinAt(replica)(archive.head(), facts)).toMatchObject({ result: 'fork', allowed: false });
    expect(await twinAt(replica)(archive.head(), null)).toMatchObject({ result: 'resume', allowed: true });
  });

  test('that the archive has already are its history', async () => {
    const demoted = server(2);
    const archive = await archiveOf(demoted, ['0-2-1', '0-2-2']);
    expect(await twinAt(demoted)(archive.head(), REPLICA)).toMatchObject({ result: 'resume', allowed: true });
  });

  test('what a replica wrote as the primary is its history', async () => {
    const archive = await archiveOf(server(1), ['0-1-1']);
    const demoted = server(2).apply('0-1-1 0-2-2 0-2-3');
    const twin = twinAt(demoted);
    expect(await twin(archive.head(), { ...REPLICA, slavePosition: '0-2-3' })).toMatchObject({ result: 'move' });
    demoted.apply('0-3-4');
    expect(await twin(archive.head(), { ...REPLICA, slavePosition: '0-3-4' })).toMatchObject({ result: 'move' });
  });
});

describe('looking twice a second', () => {
  test('walks the archive only over what is new', async () => {
    const source = server(1);
    const archive = await archiveOf(source, ['0-1-1', ...Array.from({ length: 20 }, (_, i) => `0-1-${i + 2}`)]);
    const twin = twinAt(server(2).apply('0-1-1 0-2-2 0-2-3'));
    let walked = 0;
    let read = 0;
    const counted = (): Head => {
      const head = archive.head();
      return {
        ...head,
        async *history() {
          for await (const witness of head.history()) {
            walked++;
            yield witness;
          }
        },
        bytes: (witness) => {
          read++;
          return head.bytes(witness);
        },
      };
    };
    await twin(counted(), LIVING);
    [walked, read] = [0, 0];
    for (let i = 0; i < 5; i++) await twin(counted(), LIVING);
    expect(walked).toBeLessThan(20);
    expect(read).toBe(0);
    await archiveOf(source, ['0-1-22'], archive);
    walked = 0;
    expect(await twin(counted(), LIVING)).toMatchObject({ result: 'fork', allowed: true, common: { id: '0-1-1' } });
    expect(walked).toBeLessThan(10);
  });
});
