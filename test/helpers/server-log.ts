import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as binlog from './binlog.ts';

export interface Gtid {
  readonly domain: number;
  readonly server: number;
  readonly sequence: number;
}

/** `0-1-52` */
export function gtidOf(text: string): Gtid {
  const [domain, server, sequence] = text.split('-').map(Number) as [number, number, number];
  return { domain, server, sequence };
}

const indexOf = (names: readonly string[]) => names.map((name) => `./${name}\n`).join('');
const GTID_EVENT = 162;

/** The binlogs of one server of a replication, as it would write them: its own bytes, the GTIDs that a test says. */
export class ServerLog {
  readonly dir = mkdtempSync(join(tmpdir(), 'shipmate-server-log-'));
  readonly serverId: number;
  #number = 0;
  #seconds: number;
  /** gtid_binlog_state: per domain and server the last sequence; of a domain the last writer last. */
  #state: Gtid[];

  /** `state`: what its first file's list says, as after a purge. `seconds`: when that was begun. */
  constructor(serverId: number, { state = '', seconds = 1_700_000_000 + serverId * 100_000 } = {}) {
    this.serverId = serverId;
    this.#seconds = seconds;
    this.#state = state === '' ? [] : state.split(',').map(gtidOf);
    this.#open();
  }

  /** Transactions by their GTIDs: `0-1-7 0-1-8 1-2-3`. */
  apply(gtids: string, { bytes = 60 }: { bytes?: number } = {}): this {
    for (const gtid of gtids.split(' ').filter((text) => text !== '')) {
      this.begin(gtid, { bytes });
      this.#write(binlog.xid(this.#fields));
      this.#see(gtidOf(gtid));
    }
    return this;
  }

  /** A transaction that does not end. */
  begin(gtid: string, { bytes = 60 }: { bytes?: number } = {}): this {
    this.#seconds++;
    const event = binlog.gtid(gtidOf(gtid), binlog.GTID_FLAGS.transactional, this.#fields);
    this.#write(event, binlog.tableMap(this.#fields), binlog.rows(bytes + this.serverId, this.#fields));
    return this;
  }

  rotate(): this {
    this.#write(binlog.rotate(this.#name(this.#number + 1), this.#fields));
    const bytes = readFileSync(this.#path);
    writeFileSync(this.#path, binlog.asShipped(bytes));
    this.#open();
    return this;
  }

  /** Drops all but the newest files. */
  purge(keep = 1): this {
    const names = this.#names;
    writeFileSync(this.#index, indexOf(names.slice(-keep)));
    for (const name of names.slice(0, -keep)) rmSync(join(this.dir, name));
    return this;
  }

  /** The GTIDs of what a reader meets who starts at a place, where an event must start. */
  gtidsFrom({ segment, offset }: { segment: string; offset: number }): string[] {
    return this.#names
      .filter((name) => name >= segment)
      .flatMap((name) => {
        const bytes = readFileSync(join(this.dir, name));
        const gtids: string[] = [];
        for (let at = name === segment ? Math.max(4, offset) : 4; at < bytes.length; at += bytes.readUInt32LE(at + 9)) {
          if (bytes[at + 4] !== GTID_EVENT) continue;
          gtids.push(`${bytes.readUInt32LE(at + 27)}-${bytes.readUInt32LE(at + 5)}-${bytes.readBigUInt64LE(at + 19)}`);
        }
        return gtids;
      });
  }

  remove(): void {
    rmSync(this.dir, { recursive: true, force: true });
  }

  get #index(): string {
    return join(this.dir, 'binlog.index');
  }

  get #names(): string[] {
    return readFileSync(this.#index, 'utf8')
      .trim()
      .split('\n')
      .map((line) => line.slice(2));
  }

  get #fields() {
    return { serverId: this.serverId, seconds: this.#seconds };
  }

  #name(number: number): string {
    return `binlog.${String(number).padStart(6, '0')}`;
  }

  get #path(): string {
    return join(this.dir, this.#name(this.#number));
  }

  #see(gtid: Gtid): void {
    this.#state = this.#state.filter(({ domain, server }) => domain !== gtid.domain || server !== gtid.server);
    this.#state.push(gtid);
  }

  #open(): void {
    this.#number++;
    this.#seconds++;
    const events = [binlog.formatDescription(this.#fields), binlog.gtidList(this.#state, this.#fields)];
    const bytes = Buffer.concat([binlog.MAGIC, ...events]);
    bytes[21]! |= 1;
    writeFileSync(this.#path, bytes);
    appendFileSync(this.#index, indexOf([this.#name(this.#number)]));
  }

  #write(...events: readonly Buffer[]): void {
    appendFileSync(this.#path, Buffer.concat(events));
  }
}
