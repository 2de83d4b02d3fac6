import { copyFile, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { seededRandom } from '../fakes/faulty-store.ts';
import { type Mariadb, startMariadb } from '../helpers/mariadb.ts';
import { MIB } from './figures.ts';

/** A server's binlogs without the server, as one that was shut down leaves them. */
export interface Binlogs {
  readonly dir: string;
  /** Paths of the files, oldest first. */
  readonly files: readonly string[];
  readonly bytes: number;
}

const INDEX = 'binlog.index';
const SERVER_ARGS = [
  // Haste does no harm: what is measured begins when the server has ended.
  ...['--sync-binlog=0', '--innodb-flush-log-at-trx-commit=0', '--innodb-buffer-pool-size=128M'],
  ...['--max-binlog-size=100M', '--binlog-format=ROW'],
];
const WRITERS = 2;
const NOTES = 2_000;
const TRANSACTIONS_A_CALL = 1_000;
/** The tables are emptied so often that they take little room beside the binlogs. */
const CALLS_A_TABLE = 30;

/** The binlogs that an earlier run left in `dir`, where they are of this size; otherwise new ones, made there. */
export async function provideBinlogs(dir: string, mib: number): Promise<Binlogs> {
  const found = await readBinlogDir(dir).catch(() => null);
  if (found && Math.floor(found.bytes / MIB / 100) === Math.floor(mib / 100)) return found;
  await rm(dir, { recursive: true, force: true });
  await mkdir(dir, { recursive: true });
  const server = await startMariadb({ args: SERVER_ARGS });
  try {
    await fill(server, mib * MIB);
    await server.shutDown();
    const names = (await readdir(server.dataDir)).filter((name) => /^binlog\.\d+$/.test(name));
    for (const name of [...names, INDEX]) await move(join(server.dataDir, name), join(dir, name));
  } finally {
    await server.stop();
  }
  return readBinlogDir(dir);
}

async function readBinlogDir(dir: string): Promise<Binlogs> {
  const lines = (await readFile(join(dir, INDEX), 'utf8')).trim().split('\n');
  const files = lines.map((line) => join(dir, line.replace(/^.*\//, '')));
  const sizes = await Promise.all(files.map(async (file) => (await stat(file)).size));
  return { dir, files, bytes: sizes.reduce((sum, size) => sum + size, 0) };
}

async function move(from: string, to: string): Promise<void> {
  await rename(from, to).catch(() => copyFile(from, to)); // to another file system
  const file = await open(to);
  await file.sync();
  await file.close();
}

/** Has the server itself write transactions until its binlogs are that long. */
async function fill(server: Mariadb, bytes: number): Promise<void> {
  for (const sql of SCHEMA) await server.query(sql);
  const rows = inventTexts(NOTES).flatMap((text, id) => [id, text]);
  await server.query(`INSERT INTO shop.notes VALUES ${Array(NOTES).fill('(?, ?)')}`, rows);
  const write = async (n: number) => {
    const connection = await server.connect();
    await connection.query('USE shop');
    for (let call = 1; (await writtenBytes(server)) < bytes; call++) {
      await connection.query('CALL write_orders(?)', [TRANSACTIONS_A_CALL]);
      if (n === 0 && call % CALLS_A_TABLE === 0) await connection.query('TRUNCATE orders');
    }
    await connection.end();
  };
  await Promise.all(Array.from({ length: WRITERS }, (_, n) => write(n)));
}

async function writtenBytes(server: Mariadb): Promise<number> {
  const logs = await server.query('SHOW BINARY LOGS');
  return logs.reduce((sum, log) => sum + Number(log.File_size), 0);
}

/**
 * Orders; half of them are paid in the same transaction, and some come with a second row. There are many short notes
 * and few long ones. The random bytes and numbers do not compress, the words do.
 */
const SCHEMA = [
  'CREATE DATABASE shop',
  'CREATE TABLE shop.notes (id INT PRIMARY KEY, note TEXT NOT NULL) CHARACTER SET latin1',
  `CREATE TABLE shop.orders (
     id BIGINT PRIMARY KEY AUTO_INCREMENT, customer INT NOT NULL, placed DATETIME(6) NOT NULL, status VARCHAR(12) NOT NULL,
     amount DECIMAL(12,2) NOT NULL, token BINARY(16) NOT NULL, note TEXT NOT NULL) CHARACTER SET latin1`,
  // User variables: the values of others would stand in the log, in the text of each statement.
  `CREATE PROCEDURE shop.write_orders(IN transactions INT)
   BEGIN
     WHILE transactions > 0 DO
       SET transactions = transactions - 1, @dice = RAND(), @id = FLOOR(RAND() * ${NOTES});
       SELECT note INTO @note FROM shop.notes WHERE id = @id;
       START TRANSACTION;
       INSERT INTO shop.orders (customer, placed, status, amount, token, note)
         VALUES (FLOOR(RAND() * 100000), NOW(6), 'placed', RAND() * 1000, RANDOM_BYTES(16),
           LEFT(@note, 20 + FLOOR(POW(RAND(), 3) * 4000)));
       IF @dice < 0.5 THEN
         UPDATE shop.orders SET status = 'paid' WHERE id = LAST_INSERT_ID();
       END IF;
       IF @dice < 0.2 THEN
         INSERT INTO shop.orders (customer, placed, status, amount, token, note)
           VALUES (FLOOR(RAND() * 100000), NOW(6), 'offered', RAND() * 1000, RANDOM_BYTES(16), '');
       END IF;
       COMMIT;
     END WHILE;
   END`,
];

/** Texts in an invented language, with common words and rare ones. */
function inventTexts(count: number): string[] {
  const random = seededRandom(1);
  const letters = 'etaoinshrdlucmwfgypbvk';
  const skewed = (length: number) => Math.floor(random() ** 2 * length);
  const invent = () =>
    Array.from({ length: 2 + Math.floor(random() * 8) }, () => letters[skewed(letters.length)]).join('');
  const vocabulary = Array.from({ length: 5_000 }, invent);
  return Array.from({ length: count }, () => {
    let text = '';
    while (text.length < 4_100) text += `${vocabulary[skewed(vocabulary.length)]} `;
    return text;
  });
}
