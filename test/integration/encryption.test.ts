import { execFile } from 'node:child_process';
import { hkdfSync } from 'node:crypto';
import { mkdir, mkdtemp, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { bech32 } from '@scure/base';
import { Decrypter, generateX25519Identity, identityToRecipient } from 'age-encryption';
import { stringify } from 'yaml';
import { WitnessSecret } from '../../src/archive/secret.ts';
import type { Archive } from '../../src/archive/walk.ts';
import { fingerprintOf } from '../../src/codec/age-keys.ts';
import { decodeHeader } from '../../src/core/header.ts';
import { openFileStore } from '../../src/store/file.ts';
import { MemoryHub } from '../fakes/memory-coordination.ts';
import { differences, readBinlogs } from '../helpers/archive.ts';
import { Cluster, STREAM } from '../helpers/cluster.ts';
import { type Daemon, shipmate } from '../helpers/daemon.ts';
import { Installation } from '../helpers/launcher.ts';
import { createArchive, shipTerm } from '../helpers/shipped-archive.ts';
import { WalServer } from '../helpers/wal-servers.ts';

jest.setTimeout(120_000);

const run = promisify(execFile);

interface Key {
  readonly identity: string;
  readonly recipient: string;
  /** An identity file. */
  readonly path: string;
}

let dir: string;
let keys: Key[];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'shipmate-encryption-'));
  keys = await Promise.all(['first', 'second', 'next'].map(newKey));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

async function newKey(name: string): Promise<Key> {
  const identity = await generateX25519Identity();
  const path = join(dir, `${name}.key`);
  await writeFile(path, `# ${name}\n${identity}\n`, { mode: 0o600 });
  return { identity, recipient: await identityToRecipient(identity), path };
}

/** The chunks' objects in the order of the chain. */
async function chunksIn(store: string) {
  const terms = join(store, STREAM, 'terms');
  const names = (await readdir(terms, { recursive: true })).map((name) => join(terms, name)).sort();
  const objects = names.map(async (path) => ({ path, isFile: (await stat(path)).isFile() }));
  const files = (await Promise.all(objects)).filter(({ isFile }) => isFile);
  const read = files.map(async ({ path }) => {
    const bytes = await readFile(path);
    return { path, bytes, ...decodeHeader(bytes, path) };
  });
  return (await Promise.all(read)).flatMap((each) =>
    each.header.kind === 'chunk'
      ? [{ ...each, header: each.header, age: each.bytes.subarray(each.payloadOffset) }]
      : [],
  );
}

const PIECE_BYTES = 1 << 20;
/** So much of the next piece each holds too, so that no key is cut in two. */
const OVERLAP_BYTES = 256;

/** What the process has in memory that it could have written; without what is zero. */
async function memoryOf(pid: number): Promise<Buffer[]> {
  const maps = await readFile(`/proc/${pid}/smaps`, 'utf8');
  const memory = await open(`/proc/${pid}/mem`);
  const zeros = Buffer.alloc(PIECE_BYTES + OVERLAP_BYTES);
  const parts: Buffer[] = [];
  try {
    for (const [, from, to, residentKib] of maps.matchAll(/^([0-9a-f]+)-([0-9a-f]+) rw[\s\S]*?^Rss: +(\d+) kB/gm)) {
      const [start, end] = [Number.parseInt(from!, 16), Number.parseInt(to!, 16)];
      for (let at = start; at < end && residentKib !== '0'; at += PIECE_BYTES) {
        const part = Buffer.alloc(Math.min(zeros.length, end - at));
        const { bytesRead } = await memory.read(part, 0, part.length, at).catch(() => ({ bytesRead: 0 }));
        if (!part.equals(zeros.subarray(0, part.length))) parts.push(part.subarray(0, bytesRead));
      }
    }
  } finally {
    await memory.close();
  }
  return parts;
}

describe('two daemons that encrypt for two recipients', () => {
  let cluster: Cluster;
  beforeAll(async () => {
    cluster = await Cluster.start({ daemon: { recipients: keys.slice(0, 2).map(({ recipient }) => recipient) } });
    await cluster.server.query('CREATE DATABASE shop');
    await cluster.server.query('CREATE TABLE shop.notes (id INT PRIMARY KEY AUTO_INCREMENT, note TEXT)');
  });
  afterAll(() => cluster?.stop());

  const write = async (rows: number) => {
    for (let n = 0; n < rows; n++) {
      await cluster.server.query(
        "INSERT INTO shop.notes (note) VALUES (REPEAT('a plain text that nobody may see ', 30))",
      );
    }
    await cluster.settled();
  };
  const restore = async (...args: string[]) => {
    const to = await mkdtemp(join(dir, 'restored-'));
    return { to, outcome: await shipmate(cluster.daemons[0]!.configFile, 'restore', STREAM, '--to', to, ...args) };
  };

  test('a key from the config’s rotates from one chunk to the next, a twin goes on, and the keys alone give the log back', async () => {
    const { master, standby } = await cluster.ready();
    await write(40);
    const since = standby.mark();
    await master.kill();
    await standby.becomesMaster({ since });
    await write(20);
    await rotate(master);
    await cluster.ready();
    await rotate(standby);
    await cluster.ready();
    await write(20);
    // A witness that did not work would show as another result than these.
    const results = (await cluster.chain.read()).flatMap(({ header }) =>
      header.kind === 'opening' ? [header.result] : [],
    );
    expect(new Set(results)).toEqual(new Set(['start', 'resume']));
    const chunks = await chunksIn(cluster.storePath);
    const [first, second, next] = keys.map(({ recipient }) => fingerprintOf(recipient));
    const named = chunks.map(({ header }) => header.recipients!.join());
    expect(new Set(named)).toEqual(new Set([`${first},${second}`, `${first},${next}`]));
    expect(named.lastIndexOf(`${first},${second}`)).toBeLessThan(named.indexOf(`${first},${next}`));

    const { to, outcome } = await restore('--identity', keys[0]!.path);
    expect(outcome).toMatchObject({ code: 0 });
    expect(differences(await readBinlogs(cluster.server.dataDir), await readBinlogs(to))).toEqual([]);
    expect((await restore()).outcome).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(new RegExp(`is encrypted for ${first}, ${second}[^]*--identity FILE`)),
    });
    // Who has the old key alone reads what is old.
    const { stderr } = (await restore('--identity', keys[1]!.path)).outcome;
    expect(stderr).toContain(`is encrypted for ${first}, ${next}, and the identities given are ${second}`);

    const verify = (...args: string[]) => shipmate(standby.configFile, 'verify', '--deep', '--json', ...args);
    expect(JSON.parse((await verify()).stdout).streams).toMatchObject([{ whole: true, unopened: chunks.length }]);
    const [opened] = JSON.parse((await verify('--identity', keys[0]!.path)).stdout).streams;
    expect(opened).toMatchObject({ whole: true, unopened: 0 });
  });

  /** As an operator does it: one daemon after the other, with the new key in its config. */
  async function rotate(daemon: Daemon): Promise<void> {
    const config = await readFile(daemon.configFile, 'utf8');
    await writeFile(daemon.configFile, config.replace(keys[1]!.recipient, keys[2]!.recipient));
    if (daemon.running) await daemon.stop();
  }

  test('a stolen host opens nothing: neither its files nor the daemon’s memory hold a key of the store’s objects', async () => {
    const { master } = await cluster.ready();
    await write(5);
    const chunks = await chunksIn(cluster.storePath);
    const memory = await memoryOf(master.pid);
    const holds = (secret: Uint8Array | string) =>
      memory.some((part) => part.includes(typeof secret === 'string' ? secret : Buffer.from(secret)));
    expect(holds(keys[0]!.recipient)).toBe(true); // the dump is one: this stands in the config
    for (const { identity } of keys) {
      expect(holds(identity)).toBe(false);
      expect(holds(bech32.decodeToBytes(identity.toLowerCase()).bytes)).toBe(false);
    }
    const library = new Decrypter();
    library.addIdentity(keys[0]!.identity);
    for (const { age } of chunks.slice(-8)) {
      const end = age.indexOf('\n', age.indexOf('\n--- ') + 1) + 1;
      const fileKey = await library.decryptHeader(age.subarray(0, end));
      expect(holds(fileKey)).toBe(false);
      expect(holds(new Uint8Array(hkdfSync('sha256', fileKey, age.subarray(end, end + 16), 'payload', 32)))).toBe(
        false,
      );
    }

    const host = join(master.configFile, '..');
    const entries = await readdir(host, { recursive: true, withFileTypes: true });
    const files = entries.filter((entry) => entry.isFile()).map(({ parentPath, name }) => join(parentPath, name));
    expect(files.some((path) => path.endsWith(`secrets/${STREAM}.json`))).toBe(true);
    const object = join(dir, 'object.age');
    await writeFile(object, chunks.at(-1)!.age);
    await run('age', ['-d', '-i', keys[0]!.path, object], { encoding: 'buffer' });
    for (const path of files) await expect(run('age', ['-d', '-i', path, object])).rejects.toThrow();
  });

  test('a recipient that was mistyped is told before anything is shipped', async () => {
    const config = await readFile(cluster.daemons[0]!.configFile, 'utf8');
    const name = keys[0]!.recipient;
    const mistyped = join(dir, 'mistyped.yaml');
    await writeFile(mistyped, config.replace(name, `${name.slice(0, -1)}${name.endsWith('q') ? 'p' : 'q'}`));
    const problem = `streams.${STREAM}.encrypt.recipients[0]:`;
    expect(await shipmate(mistyped, 'run')).toMatchObject({ code: 2, stderr: expect.stringContaining(problem) });
    expect((await shipmate(mistyped, 'check')).stdout).toContain(problem);
    const { stdout } = await shipmate(cluster.daemons[0]!.configFile, 'check');
    expect(stdout).toContain(`encrypts for ${fingerprintOf(name)}, ${fingerprintOf(keys[2]!.recipient)}`);
  });
});

test('PostgreSQL’s fetch opens segments, and keeps those that it reads ahead from others', async () => {
  const store = join(dir, 'wal-store');
  await mkdir(store);
  const hub = new MemoryHub();
  const memories = [hub.client('a').archives, hub.client('a').archives] as const;
  const secret = new WitnessSecret({ stream: STREAM, memories });
  await secret.agree();
  const archive: Archive = {
    ...(await createArchive(openFileStore({ name: 'main', path: store }), STREAM, 'postgres')),
    secret,
  };
  const server = WalServer.primary();
  const wal = join(server.dir, 'pg_wal');
  try {
    for (let n = 0; n < 6; n++) {
      server.transaction({ bytes: 200_000 });
      server.switchLog();
    }
    server.transaction();
    const source = server.open();
    await shipTerm(archive, source, { maxChunkBytes: 300_000, recipients: [keys[0]!.recipient] });
    await source.close();
    const config = join(dir, 'wal.yaml');
    const stream = {
      source: { type: 'postgres', dir: '/nowhere', url: 'postgresql://shipmate@127.0.0.1/x' },
      store: 'main',
    };
    const stores = { main: { type: 'file', path: store } };
    await writeFile(
      config,
      stringify({ cluster: 'acme', stateDir: '/nowhere', coordination: 'solo', stores, streams: { [STREAM]: stream } }),
    );
    const cache = join(dir, 'cache');
    await mkdir(cache, { mode: 0o700 });
    const segments = (await readdir(wal)).filter((name) => /^[0-9A-F]{24}$/.test(name)).sort();
    const installation = await Installation.in(join(dir, 'installed'));
    const fetch = (name: string) => `"$SHIPMATE" fetch ${STREAM} ${name} ${join(dir, name)} -c ${config}`;
    const env = { XDG_CACHE_HOME: cache, NODE_DISABLE_COMPILE_CACHE: '1' };
    const [first, second] = segments;
    const refused = await installation.run(fetch(first!), env);
    expect(refused).toMatchObject({ code: 126, stderr: expect.stringContaining('is encrypted for') });
    const starts = await installation.starts();
    const script = [
      `${fetch(first!)} --identity ${keys[0]!.path} || exit`,
      `for n in $(seq 200); do ahead=$(find ${cache} -name ${second}) && [ -n "$ahead" ] && break; sleep 0.05; done`,
      `stat -c %a "$ahead" >&2`,
      `${fetch(second!)} --identity ${keys[0]!.path}`,
    ].join('\n');
    expect(await installation.run(script, env)).toEqual({ code: 0, stderr: '600\n' });
    // For the first alone: the launcher hands over what was read ahead.
    expect((await installation.starts()) - starts).toBe(1);
    for (const name of [first!, second!])
      expect(await readFile(join(dir, name))).toEqual(await readFile(join(wal, name)));
  } finally {
    server.remove();
  }
});
