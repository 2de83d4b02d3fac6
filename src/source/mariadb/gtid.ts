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
  /** Whether the transaction that `other` began last is one that was seen here (MariaDB: its domain has come that far). */
  coversBegun(other: GtidState): boolean;
  /** The GTID of the transaction that began last; empty where it has none. */
  begun(): string;
  clone(): GtidState;
}

/** The state at a position with this ID. */
export function gtidStateAt(flavour: Flavour, id: string): GtidState {
  return flavour === 'mariadb' ? new MariadbGtidState(id) : new MysqlGtidState(isPlace(id) ? '' : id);
}

/** The state that an ID names by itself: MySQL's GTIDs hold colons, MariaDB's none. */
export const gtidStateOf = (id: string) => gtidStateAt(id.includes(':') ? 'mysql' : 'mariadb', id);

/** The state at an ID of an archive, for a log of this flavour: an empty ID tells no flavour. */
export const gtidStateFor = (flavour: Flavour, id: string) => (id === '' ? gtidStateAt(flavour, id) : gtidStateOf(id));

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

export interface Gtid {
  readonly domain: number;
  readonly server: number;
  readonly sequence: bigint;
}

export const gtidText = ({ domain, server, sequence }: Gtid) => `${domain}-${server}-${sequence}`;

/** A server's last sequence number in a domain, in two halves: it has 64 bits, and is taken over for every transaction. */
interface Sequence {
  readonly server: number;
  high: number;
  low: number;
}

/** What was seen of a domain: of each server that wrote to it the last sequence, and which of them wrote last. */
interface Domain {
  last: Sequence;
  readonly servers: Map<number, Sequence>;
}

const sequenceOf = ({ high, low }: Sequence) => (BigInt(high) << 32n) | BigInt(low);
const isAbove = (a: Sequence, b: Sequence) => a.high > b.high || (a.high === b.high && a.low > b.low);

const GTID_BODY = { domain: 8, flags: 12 } as const;
const LIST_BODY = { entries: 4, entryBytes: 16 } as const;
/** The upper bits of Gtid_list's count are flags. */
const LIST_COUNT_MASK = 0x0fffffff;

/**
 * MariaDB's gtid_binlog_state. Its text is gtid_binlog_pos, of each replication domain the last GTID, ordered by domain:
 * `0-1-52,1-1-7`; a state that is made of such a text knows of no other servers.
 */
export class MariadbGtidState implements GtidState {
  readonly #domains: Map<number, Domain>;
  // The GTID of the group that is under way, unpacked: this runs for every transaction.
  #domain = 0;
  #server = 0;
  #low = 0;
  #high = 0;

  constructor(id = '') {
    this.#domains = new Map();
    for (const { domain, server, sequence } of parseMariadbGtids(id)) {
      this.#see(domain, server, Number(sequence >> 32n), Number(sequence & 0xffffffffn));
    }
  }

  load(bytes: Uint8Array, at: number): void {
    if (eventType(bytes, at) !== TYPE.gtidList) return;
    const body = at + HEADER_BYTES;
    const count = u32(bytes, body) & LIST_COUNT_MASK;
    this.#domains.clear();
    for (let i = 0; i < count; i++) {
      const entry = body + LIST_BODY.entries + i * LIST_BODY.entryBytes;
      // A domain is listed once for each server that wrote to it, the last writer last.
      this.#see(u32(bytes, entry), u32(bytes, entry + 4), u32(bytes, entry + 12), u32(bytes, entry + 8));
    }
  }

  begin(bytes: Uint8Array, at: number): void {
    const body = at + HEADER_BYTES;
    this.#server = eventServerId(bytes, at);
    this.#low = u32(bytes, body);
    this.#high = u32(bytes, body + 4);
    this.#domain = u32(bytes, body + GTID_BODY.domain);
  }

  complete(): void {
    this.#see(this.#domain, this.#server, this.#high, this.#low);
  }

  text(): string {
    return [...this.last()].map(gtidText).join(',');
  }

  covers(other: GtidState): boolean {
    if (!(other instanceof MariadbGtidState)) return false;
    for (const [number, { servers }] of other.#domains) {
      const highest = this.#highest(number);
      for (const sequence of servers.values()) if (!highest || isAbove(sequence, highest)) return false;
    }
    return true;
  }

  coversBegun(other: GtidState): boolean {
    if (!(other instanceof MariadbGtidState)) return false;
    const highest = this.#highest(other.#domain);
    const begun = { server: other.#server, high: other.#high, low: other.#low };
    return highest !== undefined && !isAbove(begun, highest);
  }

  begun(): string {
    return gtidText(this.begunGtid());
  }

  begunGtid(): Gtid {
    const begun = { server: this.#server, high: this.#high, low: this.#low };
    return { domain: this.#domain, server: this.#server, sequence: sequenceOf(begun) };
  }

  /** Whether numbers of its domain are missing before the transaction that began last, and another server wrote it. */
  skippedBy(serverId: number): boolean {
    const highest = this.#server === serverId ? undefined : this.#highest(this.#domain);
    if (!highest || (this.#high === highest.high && this.#low <= highest.low + 1)) return false;
    return this.begunGtid().sequence > sequenceOf(highest) + 1n;
  }

  clone(): MariadbGtidState {
    const copy = new MariadbGtidState();
    for (const [number, { last, servers }] of this.#domains) {
      for (const { server, high, low } of servers.values()) copy.#see(number, server, high, low);
      copy.#see(number, last.server, last.high, last.low);
    }
    return copy;
  }

  /** The last GTID of each domain, ordered by domain. */
  last(): Gtid[] {
    return [...this.#domains]
      .sort(([a], [b]) => a - b)
      .map(([domain, { last }]) => ({ domain, server: last.server, sequence: sequenceOf(last) }));
  }

  lastOf(domain: number): Gtid | null {
    const last = this.#domains.get(domain)?.last;
    return last ? { domain, server: last.server, sequence: sequenceOf(last) } : null;
  }

  /** The highest sequence number of a domain, whoever wrote it. Without gtid_strict_mode the last may be lower. */
  highestOf(domain: number): bigint | null {
    const highest = this.#highest(domain);
    return highest ? sequenceOf(highest) : null;
  }

  /** The servers that wrote to a domain, each with its last sequence number there. */
  serversOf(domain: number): ReadonlyMap<number, bigint> {
    const servers = this.#domains.get(domain)?.servers.values() ?? [];
    return new Map([...servers].map((sequence) => [sequence.server, sequenceOf(sequence)]));
  }

  #highest(number: number): Sequence | undefined {
    const domain = this.#domains.get(number);
    if (!domain || domain.servers.size === 1) return domain?.last;
    let highest = domain.last;
    for (const sequence of domain.servers.values()) if (isAbove(sequence, highest)) highest = sequence;
    return highest;
  }

  #see(number: number, server: number, high: number, low: number): void {
    let domain = this.#domains.get(number);
    if (domain?.last.server !== server) {
      const sequence = domain?.servers.get(server) ?? { server, high, low };
      if (domain) domain.last = sequence;
      else {
        domain = { last: sequence, servers: new Map() };
        this.#domains.set(number, domain);
      }
      domain.servers.set(server, sequence);
    }
    domain.last.high = high;
    domain.last.low = low;
  }
}

/** Flags of a MariaDB GTID event: how its group ends. */
export const GTID_FLAG = { standalone: 1, completedXa: 128 } as const;
export const gtidFlags = (bytes: Uint8Array, at: number) => bytes[at + HEADER_BYTES + GTID_BODY.flags]!;

function parseMariadbGtids(text: string): Gtid[] {
  return (text === '' ? [] : text.split(',')).map((gtid) => {
    const match = /^\s*(\d{1,10})-(\d{1,10})-(\d{1,20})\s*$/.exec(gtid);
    if (!match) throw notAnId(text);
    return { domain: Number(match[1]), server: Number(match[2]), sequence: BigInt(match[3]!) };
  });
}

const notAnId = (text: string) =>
  new UsageError(
    `"${text}" is not a MariaDB GTID position`,
    'write the last GTID of each domain, domain-server-sequence, separated by commas: 0-1-52,1-1-7',
  );
