import { eventType, HEADER_BYTES, TYPE, u16 } from './events.ts';
import { type Flavour, GTID_FLAG, type GtidState, gtidFlags } from './gtid.ts';

/**
 * outside: between transactions. single: in a group that its first own event ends (DDL, XA COMMIT). transaction: up to a
 * COMMIT, ROLLBACK, XID or XA PREPARE.
 */
type Place = 'outside' | 'single' | 'transaction';

/** What an event does to the group that it stands in. */
const ROLE = {
  /** Goes on with a transaction; ends a single group. */
  body: 0,
  /** Belongs to what follows: never ends a group, opens one if none is open. */
  prelude: 1,
  /** Belongs to no group: rotation, checkpoints and the like. */
  control: 2,
  begins: 3,
  ends: 4,
  query: 5,
} as const;

const roles = rolesByType();

function rolesByType(): Uint8Array {
  const table = new Uint8Array(256).fill(ROLE.body);
  const set = (role: number, ...types: number[]) => {
    for (const type of types) table[type] = role;
  };
  set(ROLE.prelude, TYPE.intvar, TYPE.rand, TYPE.userVar, TYPE.tableMap, TYPE.annotateRows, TYPE.rowsQuery);
  set(ROLE.prelude, TYPE.mysqlTransactionContext);
  set(ROLE.control, TYPE.stop, TYPE.rotate, TYPE.formatDescription);
  set(ROLE.control, TYPE.binlogCheckpoint, TYPE.gtidList, TYPE.startEncryption, TYPE.mysqlPreviousGtids);
  set(ROLE.begins, TYPE.gtid, TYPE.mysqlGtid, TYPE.mysqlAnonymousGtid, TYPE.mysqlTaggedGtid);
  set(ROLE.ends, TYPE.xid, TYPE.xaPrepare, TYPE.mysqlTransactionPayload);
  set(ROLE.query, TYPE.query);
  return table;
}

const BEGIN = Buffer.from('BEGIN');
const COMMIT = Buffer.from('COMMIT');
const ROLLBACK = Buffer.from('ROLLBACK');
const XA_START = Buffer.from('XA START');

const QUERY = { databaseLengthAt: 8, statusLengthAt: 11, headerBytes: 13 } as const;

/** Whether an event of this type can only stand between transactions, or begin one. */
export const isGroupStart = (type: number) => roles[type] === ROLE.begins || roles[type] === ROLE.control;

/** Whether an event of this type names the transaction that begins with it. */
export const isGtid = (type: number) => roles[type] === ROLE.begins;

/** Whether an event of this type belongs to a transaction: not rotation, checkpoints and the like. */
export const isOfTransaction = (type: number) => roles[type] !== ROLE.control;

/** Follows the events of a log, in order, from one transaction boundary to the next, and keeps the GTID state. */
export class Transactions {
  readonly state: GtidState;
  readonly #flavour: Flavour;
  #place: Place = 'outside';
  #hasGtid = false;

  constructor(flavour: Flavour, state: GtidState) {
    this.#flavour = flavour;
    this.state = state;
  }

  /** Whether the last event ended on a transaction boundary. */
  get atBoundary(): boolean {
    return this.#place === 'outside';
  }

  /** A new file: what a crash left unfinished in the one before never ends. */
  startFile(): void {
    this.#place = 'outside';
    this.#hasGtid = false;
  }

  /**
   * The event in bytes[at, end), without its checksum's four bytes where it has one. Of an event too large for the buffer
   * the header alone will do.
   */
  event(bytes: Buffer, at: number, end: number): void {
    switch (roles[eventType(bytes, at)]) {
      case ROLE.body:
        if (this.#place !== 'transaction') this.#complete();
        break;
      case ROLE.prelude:
        if (this.#place === 'outside') this.#place = 'single';
        break;
      case ROLE.control:
        this.startFile();
        // What does not fit into the buffer was read with the file's header.
        if (end <= bytes.length) this.state.load(bytes, at, end);
        break;
      case ROLE.begins:
        this.#begin(bytes, at, end);
        break;
      case ROLE.ends:
        this.#complete();
        break;
      default:
        this.#query(bytes, at, end);
    }
  }

  #begin(bytes: Buffer, at: number, end: number): void {
    this.state.begin(bytes, at, end);
    this.#hasGtid = true;
    // MariaDB says how the group ends; MySQL's begins with BEGIN, or is single.
    const isSingle =
      this.#flavour === 'mysql' || (gtidFlags(bytes, at) & (GTID_FLAG.standalone | GTID_FLAG.completedXa)) !== 0;
    this.#place = isSingle ? 'single' : 'transaction';
  }

  #query(bytes: Buffer, at: number, end: number): void {
    const body = at + HEADER_BYTES;
    const statement =
      body + QUERY.headerBytes + u16(bytes, body + QUERY.statusLengthAt) + bytes[body + QUERY.databaseLengthAt]! + 1;
    if (this.#place === 'transaction') {
      if (is(COMMIT, bytes, statement, end) || is(ROLLBACK, bytes, statement, end)) this.#complete();
    } else if (is(BEGIN, bytes, statement, end) || startsWith(XA_START, bytes, statement, end)) {
      this.#place = 'transaction';
    } else {
      this.#complete();
    }
  }

  #complete(): void {
    this.#place = 'outside';
    if (this.#hasGtid) this.state.complete();
    this.#hasGtid = false;
  }
}

function startsWith(word: Buffer, bytes: Buffer, at: number, end: number): boolean {
  if (at + word.length > Math.min(end, bytes.length)) return false;
  for (let i = 0; i < word.length; i++) if (bytes[at + i] !== word[i]) return false;
  return true;
}

const is = (word: Buffer, bytes: Buffer, at: number, end: number) =>
  end - at === word.length && startsWith(word, bytes, at, end);
