import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll } from '@jest/globals';
import { openMariadbSource } from '../../src/source/mariadb.ts';
import { sourceContract } from '../contract/source.contract.ts';
import { asShipped } from '../helpers/binlog.ts';
import { type Mariadb, startMariadb } from '../helpers/mariadb.ts';

const log = { debug() {}, info() {}, warn() {}, error() {} };
const isBinlog = (name: string) => name.startsWith('binlog.');

let server: Mariadb;
let copies: string;
let resetMs = 0;

/** Binlogs name their first event's second: two lives of one name must not share it, or nothing tells them apart. */
async function resetMaster(): Promise<void> {
  await delay(Math.max(0, Math.ceil(resetMs / 1000) * 1000 - Date.now()));
  await server.query('RESET MASTER');
  resetMs = Date.now();
}

beforeAll(async () => {
  server = await startMariadb();
  copies = mkdtempSync(join(tmpdir(), 'shipmate-copies-'));
  await server.query('CREATE DATABASE shop');
  await server.query('CREATE TABLE shop.orders (id INT AUTO_INCREMENT PRIMARY KEY, note LONGBLOB) ENGINE=InnoDB');
  await server.query('SET GLOBAL max_allowed_packet = 64 * 1024 * 1024');
});

afterAll(async () => {
  await server.stop();
  rmSync(copies, { recursive: true, force: true });
});

sourceContract('a real MariaDB', async () => {
  await resetMaster();
  const append = async ({ bytes = 100 }: { bytes?: number } = {}) => {
    await server.query('INSERT INTO shop.orders (note) VALUES (REPEAT(CHAR(65 + RAND() * 20), ?))', [bytes]);
  };
  const put = (from: string, to: string) => {
    for (const name of readdirSync(to).filter(isBinlog)) rmSync(join(to, name));
    for (const name of readdirSync(from).filter(isBinlog)) cpSync(join(from, name), join(to, name));
  };
  await server.query("SET SESSION binlog_format = 'ROW'");
  await append();
  return {
    open: () => openMariadbSource({ stream: 'orders', dir: server.dataDir, flavour: 'mariadb', busyPollMs: 10, log }),
    append,
    rotate: () => server.rotate(),
    purge: async () => {
      const [status] = await server.query('SHOW MASTER STATUS');
      await server.query('PURGE BINARY LOGS TO ?', [status!.File]);
    },
    reset: resetMaster,
    remember: async () => put(server.dataDir, copies),
    rollBack: async () => {
      await server.kill9();
      put(copies, server.dataDir);
      await server.restart();
      await append();
    },
    contents: async () => {
      const index = readFileSync(join(server.dataDir, 'binlog.index'), 'utf8');
      const names = index.split('\n').filter((line) => line !== '');
      return new Map(names.map((name) => [name.slice(2), asShipped(readFileSync(join(server.dataDir, name)))]));
    },
    close: async () => {},
  };
});
