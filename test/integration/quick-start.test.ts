import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import type { StatusReport, StreamStatus } from '../../src/core/status.ts';
import { checkoutForServers } from '../helpers/checkout.ts';
import { Daemon } from '../helpers/daemon.ts';
import { type Etcd, startEtcd } from '../helpers/etcd.ts';
import { type Mariadb, startMariadb } from '../helpers/mariadb.ts';
import { type CodeBlock, Page } from '../helpers/markdown.ts';
import { freePort } from '../helpers/ports.ts';
import { giveToServer, type Postgres, serverUser, startPostgres } from '../helpers/postgres.ts';
import { until } from '../helpers/wait.ts';

jest.setTimeout(180_000);

const NODES = ['db-1', 'db-2'] as const;
const page = await Page.read('docs/quick-start.md');
/** `export NAME=value`, as the page tells the reader to do in his own shell. */
const exported = Object.fromEntries(
  page.inline.flatMap((code) => {
    const [, name, value] = /^export (\w+)=(\S+)$/.exec(code) ?? [];
    return name === undefined || value === undefined ? [] : [[name, value]];
  }),
);

/** What the page's names stand for here: hosts, ports and paths, and nothing else. */
type Places = readonly (readonly [onPage: string, here: string])[];

const inPlace = (text: string, places: Places) =>
  places.reduce((changed, [onPage, here]) => changed.replaceAll(onPage, here), text);

interface Database {
  /** Carries out a block of SQL on the primary. */
  sql(text: string): Promise<unknown>;
  /** Where its log ends, as the archive's ID. */
  end(): Promise<string>;
}

/** The page carried out on two hosts that are this one: what its blocks of code print, in their order. */
class Reader {
  readonly dir: string;
  readonly daemons: Daemon[] = [];
  readonly printed: { readonly code: string; readonly output: string }[] = [];
  readonly stream: string;
  readonly #env: NodeJS.ProcessEnv;
  readonly #places: Places;
  readonly #config: (text: string, node: string) => string;

  constructor(options: {
    dir: string;
    stream: string;
    places: Places;
    env: NodeJS.ProcessEnv;
    config: (text: string, node: string) => string;
  }) {
    this.dir = options.dir;
    this.stream = options.stream;
    this.#places = [
      ...options.places,
      ['/etc/', join(options.dir, 'etc/')],
      ['/mnt/backup', join(options.dir, 'store')],
    ];
    this.#config = options.config;
    this.#env = { ...process.env, ...options.env, PATH: `${options.dir}/bin:${process.env.PATH}` };
  }

  /** A program of the page's that is another one here. */
  async standIn(name: string, script: string): Promise<void> {
    await mkdir(join(this.dir, 'bin'), { recursive: true });
    await writeFile(join(this.dir, 'bin', name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  }

  async configure({ text }: CodeBlock): Promise<void> {
    await mkdir(join(this.dir, 'store'));
    await giveToServer(join(this.dir, 'store'));
    for (const node of NODES) {
      const listen = `127.0.0.1:${await freePort()}`;
      const own = inPlace(this.#config(text, node), this.#places)
        .replace('node: db-1', `node: ${node}\nstateDir: ${join(this.dir, node)}`)
        .replace('127.0.0.1:9187', listen);
      const configFile = join(this.dir, node === 'db-1' ? 'etc/shipmate/shipmate.yaml' : `${node}.yaml`);
      await writeFile(configFile, own);
      this.daemons.push(new Daemon({ node, configFile, url: `http://${listen}`, faultsFile: undefined }));
    }
  }

  async run({ text }: CodeBlock, { configFile } = this.daemons[0]!): Promise<string> {
    const child = spawn('bash', ['-euo', 'pipefail', '-c', inPlace(text, this.#places)], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...this.#env, SHIPMATE_CONFIG: configFile },
      cwd: this.dir,
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (part) => {
        output += part;
      });
    }
    const [code] = await once(child, 'close');
    if (code !== 0) throw new Error(`the page's\n${text}\nended with ${code}:\n${output}\n${this.tails()}`);
    this.printed.push({ code: text, output });
    return output;
  }

  /** What `systemctl enable --now shipmate` does on both hosts. */
  async startDaemons(): Promise<void> {
    for (const daemon of this.daemons) await daemon.start();
    await until('one leads, and the other is ready', () => this.#isPair(), { describe: () => this.tails() });
  }

  async #isPair(): Promise<boolean> {
    const { master = null, twins = [] } = (await this.#told()) ?? {};
    return master !== null && twins.length === NODES.length && twins.every(({ ready }) => ready);
  }

  async #told(): Promise<StreamStatus | undefined> {
    const answer = await fetch(`${this.daemons[0]!.url}/api/v1/status`);
    const { streams }: StatusReport = JSON.parse(await answer.text());
    return streams.find(({ name }) => name === this.stream);
  }

  /** A reader is slower than a second; this one waits until what he wrote is in the archive. */
  async #settled(end: Database['end']): Promise<void> {
    if (!this.daemons[0]?.running) return;
    await until('all of it is shipped', async () => (await this.#told())?.cursor?.id === (await end()), {
      describe: () => this.tails(),
    });
  }

  tails = () => this.daemons.map((daemon) => daemon.tail()).join('\n');

  /** The page's blocks below a heading, one after the other. */
  async follow(heading: string, { sql, end }: Database): Promise<void> {
    for (const block of page.blocks.filter((one) => one.heading === heading)) {
      if (block.language === 'sql') await sql(block.text);
      else if (block.language === 'yaml') await this.configure(block);
      else if (block.text.startsWith('systemctl ')) await this.startDaemons();
      else if (block.language === 'sh') await this.run(block, this.daemons[0]);
      if (block.text.includes('shipmate check')) await this.run(block, this.daemons[1]); // on both hosts
      await this.#settled(end);
    }
  }

  outputOf(pattern: RegExp): string {
    const found = this.printed.filter(({ code }) => pattern.test(code));
    if (found.length === 0) throw new Error(`the page has no command ${pattern}`);
    return found.map(({ output }) => output).join('\n');
  }
}

async function newDirectory(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'shipmate-quick-start-'));
  await chmod(dir, 0o755);
  return dir;
}

/** A host's file system, as far as the page writes there. */
async function hostIn(root: string): Promise<string> {
  for (const path of ['etc/default', 'etc/shipmate', 'restore']) await mkdir(join(root, path), { recursive: true });
  return root;
}

let etcd: Etcd;
let dir: string;
beforeAll(async () => {
  Object.assign(process.env, exported); // the daemons' too
  [etcd, dir] = await Promise.all([startEtcd(), newDirectory()]);
});
afterAll(async () => {
  await etcd?.stop();
  await rm(dir, { recursive: true, force: true });
});

const members: Places = [1, 2, 3].map((n) => [`http://etcd-${n}:2379`, ''] as const);
/** One member in place of the page's three. */
const withEtcd = (text: string) =>
  inPlace(text, members).replace(/endpoints: \[[^\]]*\]/, `endpoints: [${etcd.endpoints.join(', ')}]`);

describe('docs/quick-start.md', () => {
  test('leads to a MariaDB pair that ships, and back to a database', async () => {
    const root = await hostIn(join(dir, 'mariadb'));
    const args = ['--log-slave-updates', '--gtid-strict-mode=ON', '--sync-binlog=1'];
    const servers: Mariadb[] = [];
    let reader: Reader | undefined;
    try {
      for (const serverId of [1, 2, 3]) servers.push(await startMariadb({ serverId, args }));
      const [primary, replica, empty] = servers as [Mariadb, Mariadb, Mariadb];
      await replica.replicateFrom(primary);
      const config = (text: string, node: string) => {
        const { dataDir, socket } = node === 'db-1' ? primary : replica;
        return withEtcd(text).replace('/var/lib/mysql', dataDir).replace('/run/mysqld/mysqld.sock', socket);
      };
      const places: Places = [
        ['/run/restore.sock', empty.socket],
        ['/restore', join(root, 'restore')],
      ];
      reader = new Reader({ dir: root, stream: 'orders', places, env: {}, config });
      const { shipmate } = await standIns(reader);
      expect(shipmate).toContain('bin/shipmate');
      const to = `case "$*" in *--socket*) ;; *) set -- --user=root --socket=${primary.socket} "$@" ;; esac`;
      await reader.standIn('mariadb', `${to}\nPATH=/usr/bin:$PATH exec /usr/bin/mariadb --no-defaults "$@"`);
      const sql = async (text: string) => {
        for (const statement of text.split(';')) if (statement.trim() !== '') await primary.query(statement);
        await replica.waitFor(await primary.gtids());
      };
      await reader.follow('3. MariaDB', { sql, end: () => primary.gtids() });

      expect(reader.outputOf(/^shipmate check/m)).toContain('0 errors');
      expect(reader.outputOf(/^shipmate ls/m)).toContain('recoverable: ');
      expect(reader.outputOf(/^shipmate ls/m)).toContain('whole, every payload read');
      expect(reader.outputOf(/^shipmate restore/m)).toMatch(/^1\t\d{4}-/m);
      const drop = await readFile(join(root, 'etc/systemd/system/shipmate.service.d/local.conf'), 'utf8');
      expect(drop).toBe('[Service]\nSupplementaryGroups=mysql\nReadWritePaths=/mnt\n');
      expect(await readFile(join(root, 'etc/default/shipmate'), 'utf8')).toBe(
        `SHIPMATE_DB_PASSWORD=${exported.SHIPMATE_DB_PASSWORD}\n`,
      );
    } finally {
      await Promise.all((reader?.daemons ?? []).map((daemon) => daemon.stop())); // in order: their names are free again
      await Promise.all(servers.map((server) => server.stop()));
    }
  });

  test('leads to a PostgreSQL pair that ships, and back to a database', async () => {
    const root = await hostIn(join(dir, 'postgres'));
    const servers: Postgres[] = [];
    let reader: Reader | undefined;
    try {
      const primary = await startPostgres();
      servers.push(primary);
      const standby = await primary.standby();
      servers.push(standby);
      const config = (text: string, node: string) => {
        const { dataDir, socketDir, port } = node === 'db-1' ? primary : standby;
        return withEtcd(text)
          .replace('/var/lib/postgresql/15/main', dataDir)
          .replace('host=/var/run/postgresql', `host=${socketDir}&port=${port}`);
      };
      const socketOnly = `unix_socket_directories = '${primary.socketDir}'\nlisten_addresses = ''\n`;
      await writeFile(join(root, 'restore', 'postgresql.conf'), socketOnly);
      await giveToServer(root);
      const places: Places = [
        ['/restore', join(root, 'restore')],
        ['-p 5433', `-p ${await freePort()}`],
      ];
      const env = {
        PGHOST: primary.socketDir,
        PGPORT: String(primary.port),
        PGUSER: 'postgres',
        PGDATABASE: 'postgres',
      };
      reader = new Reader({ dir: root, stream: 'billing', places, env, config });
      await standIns(reader);
      const end = async () => `1/${await primary.lsn()}`;
      await reader.follow('4. PostgreSQL', { sql: (text) => primary.sql(text), end });

      expect(reader.outputOf(/shipmate check/)).toContain('0 errors');
      expect(reader.outputOf(/shipmate verify/)).toContain('whole, every payload read');
      expect(reader.outputOf(/psql -p/)).toMatch(/^ +1 \| \d{4}-/m);
    } finally {
      await Promise.all((reader?.daemons ?? []).map((daemon) => daemon.stop())); // in order: their names are free again
      await Promise.all(servers.map((server) => server.stop()));
    }
  });

  /** `shipmate` on the PATH, and a sudo that becomes the server's user where this process is root. */
  async function standIns(reader: Reader): Promise<{ shipmate: string }> {
    const shipmate = join(await checkoutForServers(dir), 'bin', 'shipmate');
    await reader.standIn('shipmate', `exec ${shipmate} "$@"`);
    const { uid, gid } = serverUser;
    const become = uid === undefined ? '' : `setpriv --reuid ${uid} --regid ${gid} --clear-groups -- `;
    for (const name of ['chgrp', 'chown', 'adduser']) await reader.standIn(name, ':'); // users of the package's
    await reader.standIn('sudo', `shift 2\nHOME=/nonexistent exec ${become}"$@"`);
    return { shipmate };
  }
});
