import { UsageError } from '../../errors.ts';
import { eventServerId, eventType, HEADER_BYTES, TYPE, u32 } from './events.ts';
import { MysqlGtidState } from './mysql-gtid.ts';

export type Flavour = 'mariadb' | 'mysql';

/** Which transactions a log has seen, kept while its events go by. A group's GTID counts once the group is complete. */
export interface GtidState {
  /** Takes over the state that a file's second event (Gtid_list, Previous_gtids) lists, at `at`. */
  load(bytes: Uint8Array, at: number, end: number): void;
  /** Remembers the GTID of the group that begins with the event at `at`. */
  begin(bytes: Uint8Array, at: number, end: number): void;
  /** The group that began last is complete. */
  complete(): void;
  /** The state as an ID; empty when nothing with a GTID was seen. */
  text(): string;
  /** Whether all that `other` has seen was seen here; false for a state of the other flavour. */
  covers(other: GtidState): boolean;
}

/** The state at a position with this ID. */
export function gtidStateAt(flavour: Flavour, id: string): GtidState {
  return flavour === 'mariadb' ? new MariadbGtidState(id) : new MysqlGtidState(isPlace(id) ? '' : id);
}

/** The state that an ID names by itself: MySQL's GTIDs hold colons, MariaDB's none. */
export const gtidStateOf = (id: string) => gtidStateAt(id.includes(':') ? 'mysql' : 'mariadb', id);

/** Where no GTID was seen in a MySQL log, its IDs are places: `binlog.000003:1500`. */
export const placeId = (segment: string, offset: number) => `${segment}:${offset}`;

const PLACE = /^([^:,/]+\.(\d{6,})):(\d+)$/;
export const isPlace = (id: string) => PLACE.test(id);

export interface Place {
  readonly segment: string;
  readonly number: number;
  readonly offset: number;
}

/** The parts of a place; null for any other ID. */
export function parsePlace(id: string): Place | null {
  const match = PLACE.exec(id);
  return match && { segment: match[1]!, number: Number(match[2]), offset: Number(match[3]) };
}

/** The sequence number in two halves: it has 64 bits, and is taken over for every transaction. */
interface Gtid {
  server: number;
  high: number;
  low: number;
}

const sequenceOf = ({ high, low }: Gtid) => (BigInt(high) << 32n) | BigInt(low);

const GTID_BODY = { domain: 8, flags: 12 } as const;
const LIST_BODY = { entries: 4, entryBytes: 16 } as const;
/** The upper bits of Gtid_list's count are flags. */
const LIST_COUNT_MASK = 0x0fffffff;

/** MariaDB's gtid_binlog_pos: of each replication domain the last GTID. In text ordered by domain: `0-1-52,1-1-7`. */
export class MariadbGtidState implements GtidState {
  readonly #last: Map<number, Gtid>;
  // The GTID of the group that is under way, unpacked: this runs for every transaction.
  #domain = 0;
  #server = 0;
  #sequenceLow = 0;
  #sequenceHigh = 0;

  constructor(id = '') {
    this.#last = parseMariadbGtids(id);
  }

  load(bytes: Uint8Array, at: number): void {
    if (eventType(bytes, at) !== TYPE.gtidList) return;
    const body = at + HEADER_BYTES;
    const count = u32(bytes, body) & LIST_COUNT_MASK;
    this.#last.clear();
    for (let i = 0; i < count; i++) {
      const entry = body + LIST_BODY.entries + i * LIST_BODY.entryBytes;
      // A domain is listed once for each server that wrote to it, the last writer last.
      const [server, low, high] = [u32(bytes, entry + 4), u32(bytes, entry + 8), u32(bytes, entry + 12)];
      this.#last.set(u32(bytes, entry), { server, high, low });
    }
  }

  begin(bytes: Uint8Array, at: number): void {
    const body = at + HEADER_BYTES;
    this.#server = eventServerId(bytes, at);
    this.#sequenceLow = u32(bytes, body);
    this.#sequenceHigh = u32(bytes, body + 4);
    this.#domain = u32(bytes, body + GTID_BODY.domain);
  }

  complete(): void {
    const last = this.#last.get(this.#domain);
    if (last) {
      last.server = this.#server;
      last.high = this.#sequenceHigh;
      last.low = this.#sequenceLow;
    } else {
      this.#last.set(this.#domain, { server: this.#server, high: this.#sequenceHigh, low: this.#sequenceLow });
    }
  }

  text(): string {
    return [...this.#last]
      .sort(([a], [b]) => a - b)
      .map(([domain, gtid]) => `${domain}-${gtid.server}-${sequenceOf(gtid)}`)
      .join(',');
  }

  covers(other: GtidState): boolean {
    if (!(other instanceof MariadbGtidState)) return false;
    for (const [domain, wanted] of other.#last) {
      const last = this.#last.get(domain);
      if (!last || last.high < wanted.high || (last.high === wanted.high && last.low < wanted.low)) return false;
    }
    return true;
  }
}

/** Flags of a MariaDB GTID event: how its group ends. */
export const GTID_FLAG = { standalone: 1, completedXa: 128 } as const;
export const gtidFlags = (bytes: Uint8Array, at: number) => bytes[at + HEADER_BYTES + GTID_BODY.flags]!;

function parseMariadbGtids(text: string): Map<number, Gtid> {
  const gtids = new Map<number, Gtid>();
  for (const gtid of text === '' ? [] : text.split(',')) {
    const match = /^\s*(\d{1,10})-(\d{1,10})-(\d{1,20})\s*$/.exec(gtid);
    if (!match) throw notAnId(text);
    const sequence = BigInt(match[3]!);
    const halves = { high: Number(sequence >> 32n), low: Number(sequence & 0xffffffffn) };
    gtids.set(Number(match[1]), { server: Number(match[2]), ...halves });
  }
  return gtids;
}

const notAnId = (text: string) =>
  new UsageError(
    `"${text}" is not a MariaDB GTID position`,
    'write the last GTID of each domain, domain-server-sequence, separated by commas: 0-1-52,1-1-7',
  );
