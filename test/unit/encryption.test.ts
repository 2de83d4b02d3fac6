import { spawnSync } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import fc from 'fast-check';
import { headOf } from '../../src/archive/head.ts';
import { adoptArchive, openArchive } from '../../src/archive/identity.ts';
import { WitnessSecret } from '../../src/archive/secret.ts';
import { type Archive, findEnd } from '../../src/archive/walk.ts';
import { fingerprintOf, type Identity, parseIdentities } from '../../src/codec/age-keys.ts';
import { openDecoder } from '../../src/codec/decoder.ts';
import { type Chunk, decodeHeader } from '../../src/core/header.ts';
import { termsPrefix } from '../../src/core/keys.ts';
import { witnessDigest } from '../../src/core/witness.ts';
import { ArchiveNotWhole } from '../../src/errors.ts';
import { ChunkReader } from '../../src/restore/chunks.ts';
import { askDurable } from '../../src/restore/durable.ts';
import { planRestore } from '../../src/restore/plan.ts';
import { silent } from '../../src/restore/progress.ts';
import { restore } from '../../src/restore/restore.ts';
import { verify } from '../../src/restore/verify.ts';
import { walFiles } from '../../src/source/postgres/wal-files.ts';
import { fakeFormat } from '../fakes/fake-format.ts';
import { FakeLog } from '../fakes/fake-log.ts';
import { openFakeSource } from '../fakes/fake-source.ts';
import { MemoryHub } from '../fakes/memory-coordination.ts';
import { MemoryStore } from '../fakes/memory-store.ts';
import { createArchive, shipTerm } from '../helpers/shipped-archive.ts';
import { WalServer } from '../helpers/wal-servers.ts';

const STREAM = 'orders';
const KEYS = 3;
const signal = new AbortController().signal;

let folder: string;
let texts: string[];
let recipients: string[];
let identities: Identity[];
let etcd: MemoryHub;
let store: MemoryStore;
let archive: Archive;
let log: FakeLog;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'shipmate-encryption-'));
  texts = await Promise.all(Array.from({ length: KEYS }, generateX25519Identity));
  recipients = await Promise.all(texts.map(identityToRecipient));
  identities = texts.flatMap((text) => parseIdentities(text, 'test'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));
beforeEach(begin);

async function begin(): Promise<void> {
  etcd = new MemoryHub();
  store = new MemoryStore('main');
  archive = { ...(await createArchive(store, STREAM)), secret: secretOf(newHost()) };
  await archive.secret!.agree();
  log = new FakeLog();
  log.append();
}

const newHost = () => new MemoryHub().client('host').archives;
const secretOf = (local: ReturnType<typeof newHost>, shared = etcd) =>
  new WitnessSecret({ stream: STREAM, memories: [shared.client('any').archives, local] });

const ship = (keys: readonly number[] = [0], as = archive) =>
  shipTerm(as, openFakeSource(log, { maxSliceBytes: 300 }), { recipients: keys.map((key) => recipients[key]!) });

function fill(transactions: number): void {
  for (let i = 0; i < transactions; i++) log.append({ bytes: 60 + ((i * 97) % 500) });
}

function chunks(): { key: string; header: Chunk; payload: Buffer }[] {
  return store.keys(termsPrefix(STREAM)).flatMap((key) => {
    const { header, payloadOffset } = decodeHeader(store.peek(key), key);
    return header.kind === 'chunk'
      ? [{ key, header, payload: Buffer.from(store.peek(key).subarray(payloadOffset)) }]
      : [];
  });
}

const readerWith = (keys: readonly number[]) =>
  new ChunkReader(archive, openDecoder({ identities: keys.map((key) => identities[key]!) }));

async function restored(
  keys: readonly number[],
  into?: string,
  afterwards = async () => {},
): Promise<{ directory: string; wroteBytes: number }> {
  const directory = into ?? join(await mkdtemp(join(folder, 'restored-')), 'log');
  const reader = readerWith(keys);
  const format = fakeFormat();
  const plan = await planRestore({
    chunks: reader,
    format,
    until: { kind: 'latest' },
    afterGap: false,
    progress: silent,
  });
  return {
    directory,
    wroteBytes: await restore(plan, { chunks: reader, format, directory, progress: silent, afterwards }),
  };
}

async function filesIn(directory: string): Promise<Map<string, string>> {
  const names = (await readdir(directory)).filter((name) => name.startsWith('log.0'));
  const read = names.sort().map(async (name) => [name, await readFile(join(directory, name), 'latin1')] as const);
  return new Map(await Promise.all(read));
}

const expected = () =>
  new Map([...log.contents()].map(([name, bytes]) => [name, bytes.toString('latin1')]).sort() as [string, string][]);

describe('an encrypted archive', () => {
  test('gives the log back to whoever has the keys, whatever was encrypted for whom, in whatever order', async () => {
    const someKeys = fc.subarray([...Array(KEYS).keys()]);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ keys: someKeys, transactions: fc.nat({ max: 12 }), rotate: fc.boolean() }), {
          minLength: 1,
          maxLength: 4,
        }),
        someKeys,
        async (reigns, held) => {
          await begin();
          for (const { keys, transactions, rotate } of reigns) {
            fill(transactions);
            if (rotate) log.rotate();
            await ship(keys);
          }
          const sealed = chunks().filter(({ header }) => header.recipients);
          const names = held.map((key) => fingerprintOf(recipients[key]!));
          const shut = sealed.filter(({ header }) => !header.recipients!.some((name) => names.includes(name)));
          const report = await verify(readerWith(held), { deep: true, progress: silent });
          expect(report).toMatchObject({ faults: [], unopened: shut.length, bytes: log.sizeBytes });
          const attempt = restored(held);
          if (shut.length > 0) return expect(attempt).rejects.toMatchObject({ code: 'ENCRYPTED' });
          const { directory } = await attempt;
          expect(await filesIn(directory)).toEqual(expected());
          await rm(directory, { recursive: true });
        },
      ),
      { numRuns: 15 },
    );
  });

  test('tells of each chunk for whom it is, and keeps neither its bytes nor their digest', async () => {
    fill(30);
    await ship([0, 2]);
    const all = chunks();
    expect(all.length).toBeGreaterThan(5);
    for (const { header, payload } of all) {
      expect(header.recipients).toEqual([0, 2].map((key) => fingerprintOf(recipients[key]!)));
      expect(payload.subarray(0, 21).toString()).toBe('age-encryption.org/v1');
      const { segment, offset } = header.from;
      const plain = log
        .contents()
        .get(segment)!
        .subarray(offset, offset + header.length);
      expect(header.witness).not.toBe(witnessDigest(plain));
      expect(header.witness).toMatch(/^[0-9a-f]{32}$/);
    }
  });

  test('is read by hand: tail, age, zstd', async () => {
    fill(20);
    await ship([1]);
    const [last] = chunks().slice(-1);
    const [object, key] = [join(folder, 'object'), join(folder, 'by-hand.key')];
    await writeFile(key, `# by age-keygen\n${texts[1]}\n`);
    const pieces: Buffer[] = [];
    for (const { key: name, header } of chunks().filter(
      (each) => each.header.from.segment === last!.header.from.segment,
    )) {
      await writeFile(object, store.peek(name));
      // As docs/encryption.md has it: the header's length stands in bytes 4 to 7, and 8 bytes before the header.
      const byHand = `tail -c +$(( $(od -An -tu4 -j4 -N4 "$1") + 9 )) "$1" | age -d -i "$2" | zstd -dc`;
      const { stdout, stderr } = spawnSync('bash', ['-c', byHand, 'bash', object, key]);
      expect(stderr.toString()).toBe('');
      expect(stdout.length).toBe(header.length);
      pieces.push(stdout);
    }
    expect(Buffer.concat(pieces).equals(log.contents().get(last!.header.from.segment)!)).toBe(true);
  });

  test('without an identity, or with another, names whom it is for', async () => {
    fill(5);
    await ship([0, 1]);
    const names = [0, 1].map((key) => fingerprintOf(recipients[key]!)).join(', ');
    for (const keys of [[], [2]]) {
      const error = await restored(keys).catch((caught: unknown) => caught);
      expect(error).toMatchObject({
        code: 'ENCRYPTED',
        message: expect.stringContaining(names),
        hint: expect.stringContaining('--identity'),
      });
    }
    await expect(restored([2])).rejects.toThrow(fingerprintOf(recipients[2]!));
  });

  test('that is damaged is told so, with the keys and without', async () => {
    fill(10);
    await ship([0]);
    const { key } = chunks()[3]!;
    const bytes = Buffer.from(store.peek(key));
    bytes[bytes.length - 20]! ^= 4;
    store.overwrite(key, bytes);
    await expect(restored([0])).rejects.toBeInstanceOf(ArchiveNotWhole);
    for (const keys of [[], [0]]) {
      const { faults } = await verify(readerWith(keys), { deep: true, progress: silent });
      expect(faults).toMatchObject([{ object: key }]);
    }
  });

  test('is restored anew where a restore of it was interrupted', async () => {
    fill(20);
    await ship([0]);
    const directory = join(folder, 'interrupted');
    const interrupt = () => Promise.reject(new Error('interrupted'));
    await expect(restored([0], directory, interrupt)).rejects.toThrow('interrupted');
    await truncate(join(directory, 'log.000001'), 700);
    await restored([0], directory);
    expect(await filesIn(directory)).toEqual(expected());
  });
});

describe('a twin', () => {
  const twin = async (local = newHost(), shared = etcd): Promise<Archive> => ({
    ...archive,
    secret: secretOf(local, shared),
  });
  const locate = async (as: Archive) => openFakeSource(log).locate(await headOf(as, await findEnd(as, null)));

  test('finds its place by the secret that the twins share, and by none other', async () => {
    fill(5);
    await ship([0]);
    expect(await locate(await twin())).toMatchObject({ result: 'resume', allowed: true });
    const other = new MemoryHub();
    const stranger = await twin(newHost(), other);
    await stranger.secret!.agree();
    expect((await locate(stranger)).result).not.toBe('resume');
  });

  test('says what is lost where neither etcd nor its host has the secret, and finds it at either of them', async () => {
    fill(5);
    await ship([0]);
    const secret = await archive.secret!.read();
    const empty = new MemoryHub();
    const forgetful = await twin(newHost(), empty);
    await expect(locate(forgetful)).rejects.toMatchObject({
      code: 'SECRET_LOST',
      hint: expect.stringContaining('adopt'),
    });
    const local = newHost();
    await local.keepSecret(STREAM, secret);
    const knowing = await twin(local, empty);
    expect(await locate(knowing)).toMatchObject({ result: 'resume' });
    await knowing.secret!.remind();
    expect(await empty.client('any').archives.secret(STREAM)).toBe(secret);
  });

  test('refuses two secrets', async () => {
    const local = newHost();
    await local.keepSecret(STREAM, 'f'.repeat(64));
    await expect(secretOf(local).read()).rejects.toMatchObject({ code: 'SECRET_CONFLICT' });
    await expect(secretOf(local).agree()).rejects.toMatchObject({ code: 'SECRET_CONFLICT' });
  });

  test('that encrypts makes a secret when it opens the archive, unless chunks are under one that is gone', async () => {
    const open = (hub: MemoryHub, encrypts: boolean) => {
      const memories = [hub.client('any').archives, newHost()] as const;
      const identity = { type: 'fake', name: null };
      const opener = { store, stream: STREAM, cluster: 'acme', node: 'b', identity, memories, encrypts, signal };
      return { opener, archive: openArchive(opener, false).then((opened) => opened.archive) };
    };
    const hub = async () => {
      const fresh = new MemoryHub();
      await fresh.client('any').archives.confirm(STREAM, archive.info.archive);
      return fresh;
    };
    const plain = await hub();
    await open(plain, false).archive;
    expect(await plain.client('any').archives.secret(STREAM)).toBeNull();
    await open(plain, true).archive;
    expect(await plain.client('any').archives.secret(STREAM)).toMatch(/^[0-9a-f]{64}$/);

    fill(3);
    await ship([0]);
    const wiped = await hub();
    const { opener, archive: opening } = open(wiped, true);
    await expect(opening).rejects.toMatchObject({ code: 'SECRET_LOST' });
    await adoptArchive(opener, etcd.client('any').cursors);
    await openArchive(opener, false);
    expect(await wiped.client('any').archives.secret(STREAM)).not.toBe(await archive.secret!.read());
  });
});

test('push tells by keyed witnesses what is durable, as by plain ones', async () => {
  const server = WalServer.primary();
  try {
    for (let n = 0; n < 2; n++) {
      server.transaction({ bytes: 300_000 });
      server.switchLog();
    }
    server.transaction();
    const wal: Archive = { ...(await createArchive(store, 'wal', 'postgres')), secret: archive.secret! };
    const source = server.open();
    const { position } = await shipTerm(wal, source, { maxChunkBytes: 200_000, recipients: recipients.slice(0, 1) });
    await source.close();
    const directory = join(server.dir, 'pg_wal');
    const name = '000000010000000000000001';
    const ask = async (as: Archive) => {
      const { ino: inode } = (await import('node:fs')).statSync(join(directory, name), { bigint: true });
      const question = { files: walFiles(), directory, name, inode, shipped: null, archiveEnd: position };
      return (await askDurable({ ...question, chunks: new ChunkReader(as) })).durable;
    };
    expect(await ask(wal)).toBe(true);
    const bytes = await readFile(join(directory, name));
    bytes[bytes.length >> 1]! ^= 1;
    await writeFile(join(directory, name), bytes);
    expect(await ask(wal)).toBe(false);
  } finally {
    server.remove();
  }
});
