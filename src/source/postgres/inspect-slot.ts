import type { Finding } from '../source.ts';
import type { ServerFacts, SlotFacts } from './server-facts.ts';

/** Whether a slot can keep what is not shipped, whether it does, and what that may cost. */
export function slotFindings(facts: ServerFacts, name: string): Finding[] {
  return [
    ...(facts.slot ? standingOf(facts.slot, name) : toBeMade(facts, name)),
    ...rights(facts),
    limit(facts),
    ...idleLimit(facts),
  ];
}

function rights({ mayUseSlots, user }: ServerFacts): Finding[] {
  if (mayUseSlots) return [];
  return [
    {
      level: 'error',
      message: `the user ${user} may not use replication slots: the server may remove WAL that is not shipped`,
      hint: `ALTER ROLE ${user} REPLICATION`,
    },
  ];
}

function toBeMade({ settings, slotsInUse }: ServerFacts, name: string): Finding[] {
  const slots = Number(settings.get('max_replication_slots'));
  if (slotsInUse < slots) {
    return [{ level: 'ok', message: `the replication slot ${name} is not there yet: a running daemon makes it` }];
  }
  return [
    {
      level: 'error',
      message: `the replication slot ${name} can't be made: ${slotsInUse} of ${slots} slots are in use`,
      hint: 'ALTER SYSTEM SET max_replication_slots = 10 (or more), and restart the server; or drop a slot that nobody uses',
    },
  ];
}

function standingOf(slot: SlotFacts, name: string): Finding[] {
  const { type, isActive, walStatus, heldBytes, safeBytes } = slot;
  if (type !== 'physical') {
    return [
      {
        level: 'error',
        message: `${name} is a ${type} replication slot of somebody else`,
        hint: 'name another one with "slot:" in the config',
      },
    ];
  }
  const findings: Finding[] = [];
  if (isActive) {
    findings.push({
      level: 'error',
      message: `somebody streams by the replication slot ${name}, which moves it`,
      hint: 'give that standby a slot of its own (primary_slot_name), or name another one with "slot:" in the config',
    });
  }
  if (walStatus === 'lost') {
    findings.push({
      level: 'error',
      message: `the replication slot ${name} was given up by the server: WAL that is not shipped may be gone`,
      hint: `look at "shipmate status" for a gap; a running daemon makes the slot again. ${KEEP_MORE}`,
    });
  } else if (walStatus === 'unreserved') {
    findings.push({
      level: 'error',
      message: `the replication slot ${name} holds ${mib(heldBytes)}, more than the server may keep: soon the archive has a gap`,
      hint: `look at "shipmate status" for what holds it up. ${KEEP_MORE}`,
    });
  } else if (walStatus === 'extended') {
    const left = safeBytes === null ? 'there is no limit but the disk' : `${mib(safeBytes)} more, and it is given up`;
    findings.push({
      level: 'warning',
      message: `the replication slot ${name} holds ${mib(heldBytes)} of WAL, more than max_wal_size: ${left}`,
      hint: 'look at "shipmate status" for what holds it up',
    });
  } else findings.push({ level: 'ok', message: `the replication slot ${name} holds ${mib(heldBytes)} of WAL` });
  return findings;
}

const KEEP_MORE =
  "Raise max_slot_wal_keep_size: ALTER SYSTEM SET max_slot_wal_keep_size = '…'; SELECT pg_reload_conf()";
const UNLIMITED = '-1';

/** A full disk or a gap: the operator's choice. */
function limit({ settings }: ServerFacts): Finding {
  const limitMiB = settings.get('max_slot_wal_keep_size') ?? UNLIMITED;
  if (limitMiB !== UNLIMITED) {
    return {
      level: 'ok',
      message: `while nothing is shipped the server keeps ${limitMiB} MB of WAL, then there is a gap`,
    };
  }
  return {
    level: 'warning',
    message:
      'max_slot_wal_keep_size is not set: while nothing is shipped WAL is kept until the disk is full and the server stops',
    hint:
      "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB' (half of what is free on the disk of pg_wal); SELECT " +
      'pg_reload_conf(). The price: an outage that lasts longer leaves a gap in the archive, and a new base backup is needed',
  };
}

/** Of PostgreSQL 18 and later. To it the slot is idle always: nobody streams by it. */
function idleLimit({ settings }: ServerFacts): Finding[] {
  const seconds = Number(settings.get('idle_replication_slot_timeout') ?? 0);
  if (seconds === 0) return [];
  return [
    {
      level: 'warning',
      message: `idle_replication_slot_timeout is ${seconds} s: when nothing is shipped for so long the slot is given up, and there may be a gap`,
      hint: 'ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf()',
    },
  ];
}

const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(0)} MB`;
