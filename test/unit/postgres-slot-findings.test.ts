import { expect, test } from '@jest/globals';
import { slotFindings } from '../../src/source/postgres/inspect-slot.ts';
import type { ServerFacts } from '../../src/source/postgres/server-facts.ts';

/** As PostgreSQL 18 says it, which tests have no server of. */
function warningsWith(idleTimeout: string): string[] {
  const settings = { max_replication_slots: '10', max_slot_wal_keep_size: '1024' };
  const facts: ServerFacts = {
    versionText: '18.1',
    isInRecovery: false,
    user: 'shipmate',
    mayUseSlots: true,
    settings: new Map([...Object.entries(settings), ['idle_replication_slot_timeout', idleTimeout]]),
    slotsInUse: 0,
    sendersInUse: 0,
    isArchivingFailing: false,
    isStreaming: false,
    slot: null,
  };
  const wrong = slotFindings(facts, 'shipmate_orders').filter(({ level }) => level !== 'ok');
  return wrong.map(({ message, hint }) => `${message} | ${hint}`);
}

test('a server that gives up slots that nobody streams by is told of', () => {
  expect(warningsWith('0')).toEqual([]);
  expect(warningsWith('86400')).toEqual([expect.stringMatching(/is 86400 s: .* a gap \| .*_timeout = 0/)]);
});
