import { setTimeout as delay } from 'node:timers/promises';
import type { Connection } from 'mariadb';
import type { Log } from '../../core/log.ts';
import { redact } from '../../core/log.ts';
import { messageOf } from '../../errors.ts';
import type { Flavour } from './gtid.ts';
import { connectionOptions, ifPermitted, type Row } from './sql.ts';

/** What only SQL knows of a server and its place in a replication. */
export interface ServerState {
  readonly serverId: number;
  /** read_only is off. */
  readonly isWritable: boolean;
  /** Whether a connection's IO or SQL thread runs; null: the user may not see. */
  readonly isReplicating: boolean | null;
  /** Whether one that it replicates from replicates from it. */
  readonly isInRing: boolean;
  /** gtid_slave_pos; empty for MySQL. */
  readonly slavePosition: string;
}

/** Whether the server alone decides what its log says next: writable, and replicating from no other. */
export const isLiving = (facts: ServerState | null) => facts?.isWritable === true && facts.isReplicating === false;

/** Whether all that its log says should come from another server. */
export const isReplica = (facts: ServerState | null) => facts?.isReplicating === true && !facts.isInRing;

/** Whether it is one as far as is known: it stays one until it says otherwise, and may be one until it has said anything. */
export const mayBeReplica = ({ lastKnown, isSilent }: Pick<Server, 'lastKnown' | 'isSilent'>) =>
  lastKnown === null ? isSilent : isReplica(lastKnown);

const FRESH_MS = 900;
const POLL_MS = 500;
/** An answer that takes longer is given up on, and its connection with it. */
const ANSWER_WITHIN_MS = 3000;
/**
 * Nobody waits longer than this for facts, but who must know: they are unknown then. One that always takes longer, since its
 * machine is busy, would never be known: who asks it waits by so much longer as its last answer took.
 */
const PATIENCE_MS = 500;

/** Asks one server about itself, over one connection that is kept. What can't be learnt is unknown, never an error. */
export class Server {
  readonly #url: string;
  readonly #flavour: Flavour;
  readonly #log: Log;
  #connection: Connection | null = null;
  #asking: Promise<ServerState | null> | null = null;
  #facts: ServerState | null = null;
  #lastKnown: ServerState | null = null;
  #askedMs = Number.NEGATIVE_INFINITY;
  #tookMs = 0;
  #isSilent = true;
  #trouble = '';
  #polling = new Set<symbol>();
  #closed = false;

  constructor({ url, flavour, log }: { url: string; flavour: Flavour; log: Log }) {
    this.#url = url;
    this.#flavour = flavour;
    this.#log = log;
  }

  /** Facts at most about a second old; null where the server does not tell in time. */
  async facts(): Promise<ServerState | null> {
    return performance.now() - this.#askedMs < FRESH_MS ? this.#facts : this.ask();
  }

  /** Facts learnt after the call; `patient`: as long as one question may take. */
  async ask({ patient = false } = {}): Promise<ServerState | null> {
    const patienceMs = patient ? ANSWER_WITHIN_MS : Math.min(ANSWER_WITHIN_MS, PATIENCE_MS + 2 * this.#tookMs);
    const before = this.#asking;
    await patiently(before, patienceMs);
    return before !== null && this.#asking === before ? null : patiently(this.#start(), patienceMs);
  }

  /** The last facts learnt, however old. */
  get lastKnown(): ServerState | null {
    return this.#lastKnown;
  }

  /** Whether it neither answered the last question in time, nor refused it, as one does that is down; so before the first. */
  get isSilent(): boolean {
    return this.#isSilent;
  }

  /** Keeps `lastKnown` up to date until the returned function is called. */
  poll(): () => void {
    const poll = Symbol('poll');
    this.#polling.add(poll);
    if (this.#polling.size === 1) void this.#keepAsking(poll);
    return () => this.#polling.delete(poll);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#polling.clear();
    this.#connection?.destroy();
    this.#connection = null;
    await this.#asking;
  }

  async #keepAsking(poll: symbol): Promise<void> {
    while (this.#polling.size > 0 && !this.#closed) {
      await this.#start();
      await delay(POLL_MS, undefined, { ref: false });
    }
    this.#polling.delete(poll);
  }

  #start(): Promise<ServerState | null> {
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = null;
    });
    return this.#asking;
  }

  async #ask(): Promise<ServerState | null> {
    const startedMs = performance.now();
    const late = setTimeout(() => this.#drop(), ANSWER_WITHIN_MS);
    try {
      this.#facts = await this.#query();
      this.#lastKnown = this.#facts;
      this.#isSilent = false;
      this.#tookMs = performance.now() - startedMs;
      this.#trouble = '';
    } catch (error) {
      this.#facts = null;
      this.#isSilent = performance.now() - startedMs >= ANSWER_WITHIN_MS;
      this.#drop();
      const trouble = redact(messageOf(error));
      if (trouble !== this.#trouble && !this.#closed) {
        this.#log.warn("the database server can't be asked whether it replicates", { error: trouble });
      }
      this.#trouble = trouble;
    } finally {
      clearTimeout(late);
    }
    this.#askedMs = startedMs;
    return this.#facts;
  }

  #drop(): void {
    this.#connection?.destroy();
    this.#connection = null;
  }

  async #query(): Promise<ServerState> {
    const { createConnection } = await import('mariadb');
    const connection = this.#connection ?? (await createConnection(connectionOptions(this.#url)));
    // A server that goes away while it is not asked fails the next question; the event would end the process.
    if (!this.#connection) connection.on('error', () => {});
    this.#connection = connection;
    if (this.#closed) this.#drop();
    const names = VARIABLES.map((name) => `'${name}'`).join(', ');
    const rows: { Variable_name: string; Value: string }[] = await connection.query(
      `SHOW GLOBAL VARIABLES WHERE Variable_name IN (${names})`,
    );
    const variables = new Map(rows.map((row) => [row.Variable_name.toLowerCase(), row.Value]));
    const upstream = await ifPermitted<Row[]>(connection.query(STATEMENTS[this.#flavour].upstream));
    const running = upstream?.filter(isRunning) ?? [];
    const downstream =
      running.length > 0 ? await ifPermitted<Row[]>(connection.query(STATEMENTS[this.#flavour].downstream)) : [];
    return {
      serverId: Number(variables.get('server_id')),
      isWritable: isOff(variables.get('read_only')),
      isReplicating: upstream && running.length > 0,
      isInRing: running.some((connected) =>
        downstream?.some((replica) => idOf(replica, ['Server_id', 'Server_Id']) === idOf(connected, MASTER_ID)),
      ),
      slavePosition: variables.get('gtid_slave_pos') ?? '',
    };
  }
}

async function patiently<T>(asking: Promise<T> | null, patienceMs: number): Promise<T | null> {
  if (!asking) return null;
  const given = new AbortController();
  const late = delay(patienceMs, null, { signal: given.signal }).catch(() => null);
  try {
    return await Promise.race([asking, late]);
  } finally {
    given.abort();
  }
}

const VARIABLES = ['server_id', 'read_only', 'gtid_slave_pos'];
const STATEMENTS = {
  mariadb: { upstream: 'SHOW ALL SLAVES STATUS', downstream: 'SHOW SLAVE HOSTS' },
  mysql: { upstream: 'SHOW REPLICA STATUS', downstream: 'SHOW REPLICAS' },
} as const;
const MASTER_ID = ['Master_Server_Id', 'Source_Server_Id'];
const THREADS = ['Slave_IO_Running', 'Slave_SQL_Running', 'Replica_IO_Running', 'Replica_SQL_Running'];

const isOff = (value: string | undefined) => value === 'OFF' || value === '0';
/** A thread that tries to connect runs too. */
const isRunning = (row: Row) => THREADS.some((thread) => row[thread] !== undefined && row[thread] !== 'No');
const idOf = (row: Row, names: readonly string[]) =>
  Number(names.map((name) => row[name]).find((id) => id !== undefined));
