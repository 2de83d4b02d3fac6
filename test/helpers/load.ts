import { setTimeout as delay } from 'node:timers/promises';
import type { Connection } from 'mariadb';
import { seededRandom } from '../fakes/faulty-store.ts';
import type { Mariadb } from './mariadb.ts';

export interface LoadOptions {
  /** Transactions a second, at most; default 200. */
  readonly commitsPerSecond?: number;
  readonly seed?: number;
}

/** Transactions of a small shop, committed on a server at a steady pace until `stop`; an outage of the server is waited out. */
export interface Load {
  readonly commits: number;
  /** The database with the tables that it writes. */
  readonly database: string;
  /** No transaction is open or begun any more when it returns. */
  stop(): Promise<void>;
}

const DATABASE = 'shop';
const TICK_MS = 20;

const TABLES = [
  `CREATE DATABASE IF NOT EXISTS ${DATABASE}`,
  `CREATE TABLE IF NOT EXISTS ${DATABASE}.customers (id INT PRIMARY KEY, name VARCHAR(60), orders INT NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS ${DATABASE}.orders (id BIGINT PRIMARY KEY AUTO_INCREMENT, customer INT, note TEXT, KEY (customer))`,
  `CREATE TABLE IF NOT EXISTS ${DATABASE}.stock (item INT PRIMARY KEY, amount INT NOT NULL)`,
];

export async function startLoad(server: Mariadb, options: LoadOptions = {}): Promise<Load> {
  const { commitsPerSecond = 200, seed = 1 } = options;
  const random = seededRandom(seed);
  for (const sql of TABLES) await server.query(sql);
  let commits = 0;
  let stopped = false;

  const write = async () => {
    let connection: Connection | null = null;
    const beganMs = performance.now();
    let begun = 0;
    while (!stopped) {
      try {
        connection ??= await connectTo(server);
        const due = Math.floor(((performance.now() - beganMs) / 1000) * commitsPerSecond);
        // After an outage it does not catch up: a burst is another test.
        begun = Math.max(begun, due - commitsPerSecond);
        const transactions = Array.from({ length: due - begun }, () => transaction(connection!, random));
        begun = due;
        await Promise.all(transactions);
        commits += transactions.length;
      } catch {
        connection?.destroy();
        connection = null;
      }
      await delay(TICK_MS);
    }
    await connection?.end().catch(() => connection?.destroy());
  };
  const writing = write();
  return {
    get commits() {
      return commits;
    },
    database: DATABASE,
    async stop() {
      stopped = true;
      await writing;
    },
  };
}

async function connectTo(server: Mariadb): Promise<Connection> {
  const connection = await server.connect();
  // Losing its server is what this connection is for.
  connection.on('error', () => {});
  await connection.query(`USE ${DATABASE}`);
  return connection;
}

/** One transaction of several statements, or a single statement; the connection sends them one after the other, unasked. */
async function transaction(connection: Connection, random: () => number): Promise<void> {
  const customer = Math.floor(random() * 500);
  const item = Math.floor(random() * 100);
  const dice = random();
  if (dice < 0.6) {
    const note = 'x'.repeat(Math.floor(random() ** 4 * 2_000));
    await connection.query('INSERT INTO orders (customer, note) VALUES (?, ?)', [
      customer,
      `order ${random()} ${note}`,
    ]);
  } else if (dice < 0.9) {
    await Promise.all([
      connection.query('BEGIN'),
      connection.query(
        'INSERT INTO customers VALUES (?, ?, 1) ON DUPLICATE KEY UPDATE orders = orders + 1, name = VALUES(name)',
        [customer, `customer ${random()}`],
      ),
      connection.query('INSERT INTO stock VALUES (?, 100) ON DUPLICATE KEY UPDATE amount = amount - 1', [item]),
      connection.query('COMMIT'),
    ]);
  } else if (dice < 0.99) {
    await connection.query('DELETE FROM orders WHERE customer = ? LIMIT 3', [customer]);
  } else {
    await connection.query('UPDATE orders SET note = REVERSE(note) WHERE customer BETWEEN ? AND ?', [
      customer,
      customer + 5,
    ]);
  }
}

/** Writes as fast as the server takes it, on several connections, until `stop`. */
export async function startFlood(server: Mariadb, { writers = 2, rowBytes = 20_000 } = {}): Promise<Load> {
  await server.query(`CREATE DATABASE IF NOT EXISTS ${DATABASE}`);
  await server.query(
    `CREATE TABLE IF NOT EXISTS ${DATABASE}.bulk (id BIGINT PRIMARY KEY AUTO_INCREMENT, body LONGBLOB)`,
  );
  let commits = 0;
  let stopped = false;
  const write = async () => {
    const connection = await connectTo(server);
    while (!stopped) {
      // The server makes the bytes, so that this process is not what limits the rate.
      await connection.query('INSERT INTO bulk (body) VALUES (REPEAT(UUID(), ?))', [Math.ceil(rowBytes / 36)]);
      commits++;
    }
    await connection.end();
  };
  const writing = Array.from({ length: writers }, write);
  return {
    get commits() {
      return commits;
    },
    database: DATABASE,
    async stop() {
      stopped = true;
      await Promise.all(writing);
    },
  };
}
