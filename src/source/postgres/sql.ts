import { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from 'pg';
import { failedSql } from './sql-errors.ts';

/** Asks questions of a server. */
export interface Sql {
  /** Its rows. Throws SERVER_UNREACHABLE where no answer comes in time, BAD_SERVER where the server refuses. */
  query<Row extends object>(text: string, values?: readonly unknown[]): Promise<Row[]>;
}

export interface ConnectionOptions {
  /** `postgresql://shipmate@/postgres?host=/run/postgresql`, `postgresql://shipmate@db-1:5432/postgres`. */
  readonly url: string;
  /** The stream's name, for messages. */
  readonly stream: string;
  /** Asks first on each new connection, which is dropped where this throws. */
  readonly onConnect?: (sql: Sql) => Promise<void>;
}

const CONNECT_WITHIN_MS = 3_000;
/** A question that takes longer is given up on, and its connection with it: the server may be frozen, the network cut. */
const ANSWER_WITHIN_MS = 3_000;

/** One connection, made when it is needed and again after it broke; it carries one question at a time. */
export class Connection implements Sql {
  readonly #options: ConnectionOptions;
  #open: Open | null = null;
  #last: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(options: ConnectionOptions) {
    this.#options = options;
  }

  query<Row extends object>(text: string, values: readonly unknown[] = []): Promise<Row[]> {
    const answer = this.#last.then(() => this.#query<Row>(text, values));
    this.#last = answer.catch(() => {});
    return answer;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#drop();
    await this.#last;
  }

  async #query<Row extends object>(text: string, values: readonly unknown[]): Promise<Row[]> {
    try {
      return await ask<Row>(this.#open ?? (await this.#connect()), text, values);
    } catch (error) {
      const failed = failedSql(error, this.#options);
      // What a server says of a question leaves its connection as good as it was.
      if (failed.code === 'SERVER_UNREACHABLE') this.#drop();
      throw failed;
    }
  }

  async #connect(): Promise<Open> {
    const { url, onConnect } = this.#options;
    if (this.#closed) throw new Error('the connection was closed');
    const open = await openClient(url);
    this.#open = open;
    open.socket.once('close', () => {
      if (this.#open === open) this.#open = null;
    });
    try {
      if (this.#closed) throw new Error('the connection was closed');
      await onConnect?.({ query: (text, values = []) => ask(open, text, values) });
      return open;
    } catch (error) {
      this.#drop();
      throw error;
    }
  }

  #drop(): void {
    this.#open?.socket.destroy();
    this.#open = null;
  }
}

interface Open {
  readonly client: Client;
  readonly socket: Socket;
}

async function openClient(url: string): Promise<Open> {
  const { Client } = await import('pg');
  const socket = new Socket();
  const client = new Client({
    connectionString: url,
    fallback_application_name: 'shipmate',
    statement_timeout: ANSWER_WITHIN_MS,
    keepAlive: true,
    stream: () => socket,
  });
  // A server that goes away while it is not asked fails the next question; the event would end the process.
  client.on('error', () => {});
  try {
    await within(CONNECT_WITHIN_MS, client.connect(), `no connection within ${CONNECT_WITHIN_MS} ms`);
  } catch (error) {
    socket.destroy();
    throw error;
  }
  return { client, socket };
}

async function ask<Row extends object>({ client }: Open, text: string, values: readonly unknown[]): Promise<Row[]> {
  const answer = client.query<Row>(text, [...values]);
  const { rows } = await within(ANSWER_WITHIN_MS, answer, `no answer within ${ANSWER_WITHIN_MS} ms`);
  return rows;
}

/** Throws where it takes longer; what comes of the work then is left alone. */
async function within<T>(ms: number, work: Promise<T>, message: string): Promise<T> {
  const done = new AbortController();
  const late = delay(ms, undefined, { signal: done.signal }).then(() => {
    throw new Error(message);
  });
  work.catch(() => {});
  late.catch(() => {});
  try {
    return await Promise.race([work, late]);
  } finally {
    done.abort();
  }
}
