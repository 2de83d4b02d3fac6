import { execFileSync } from 'node:child_process';
import { lstat, mkdtemp, readFile, readlink, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { Archive } from '../../src/archive/walk.ts';
import { Discontinuity } from '../../src/errors.ts';
import { ChunkReader } from '../../src/restore/chunks.ts';
import { planRestore, type RestorePlan } from '../../src/restore/plan.ts';
import { silent } from '../../src/restore/progress.ts';
import { restore } from '../../src/restore/restore.ts';
import { parseUntil } from '../../src/restore/until.ts';
import { postgresFormat } from '../../src/source/postgres/format.ts';
import { lsnText } from '../../src/source/postgres/lsn.ts';
import { type WalEvent, WalScanner } from '../../src/source/postgres/wal-records.ts';
import { FaultyStore } from '../fakes/faulty-store.ts';
import { MemoryStore } from '../fakes/memory-store.ts';
import { createArchive, shipTerm } from '../helpers/shipped-archive.ts';
import { type Recovered, recover } from '../helpers/wal-recovery.ts';
import { WalServer } from '../helpers/wal-servers.ts';

const MIB = 1 << 20;
const format = postgresFormat();

let root: string;
let memory: MemoryStore;
let archive: Archive;
const servers: WalServer[] = [];

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'shipmate-wal-'));
  memory = new MemoryStore();
  archive = await createArchive(memory, 'orders', 'postgres');
});

afterEach(async () => {
  for (const server of servers.splice(0)) server.remove();
  await rm(root, { recursive: true });
});

function made(server: WalServer): WalServer {
  servers.push(server);
  return server;
}

/** All that the server has: a term for each timeline. */
async function ship(server: WalServer, maxChunkBytes = 200_000): Promise<void> {
  const source = server.open();
  const isLast = () =>
    shipTerm(archive, source, { maxChunkBytes }).then(
      () => true,
      (error) => {
        if (error instanceof Discontinuity) return false;
        throw error;
      },
    );
  try {
    while (!(await isLast()));
  } finally {
    await source.close();
  }
}

interface Asked {
  readonly until?: string;
  readonly from?: string;
  readonly afterGap?: boolean;
  readonly throughTerm?: number;
  readonly chunks?: ChunkReader;
}

let turn = 0;

async function restored({ until = 'latest', from, chunks = new ChunkReader(archive), ...asked }: Asked = {}): Promise<{
  plan: RestorePlan;
  dir: string;
}> {
  const plan = await planRestore({
    chunks,
    format,
    until: parseUntil(until, format),
    from: from === undefined ? null : format.parseId(from),
    afterGap: false,
    progress: silent,
    ...asked,
  });
  const dir = join(root, String(++turn));
  await restore(plan, { chunks, format, directory: dir, progress: silent });
  return { plan, dir };
}

/** What a server that recovers from there has in the end. */
async function recovered(asked: Asked = {}): Promise<Recovered> {
  return recover((await restored(asked)).dir);
}

/** The commits of a server's own history. */
function commitsOf(server: WalServer): WalEvent[] {
  const commits = new Map<bigint, WalEvent>();
  const scanner = new WalScanner((event) => event.kind === 'commit' && commits.set(event.start, event));
  const files = [...server.contents()].map(([name, bytes]) => ({ lsn: startOf(name), bytes }));
  for (const { lsn, bytes } of files) scanner.feed(lsn, bytes);
  return [...commits.values()];
}

const startOf = (name: string) => BigInt(Number.parseInt(name.slice(16), 16) * MIB);

/** Whole segments, so many, and the beginning of another one. */
function write(server: WalServer, segments: number): void {
  for (let n = 0; n < segments; n++) {
    server.transaction({ bytes: 300_000 });
    server.transaction({ bytes: 300_000 });
    server.switchLog();
  }
  server.transaction({ bytes: 100_000 });
}

const timeOf = ({ micros }: WalEvent, offsetMs = 0) => new Date(micros / 1000 + offsetMs).toISOString();
const guideIn = (dir: string) => readFile(join(dir, 'recovery-settings.conf'), 'utf8');

test('the settings name any directory as the shell and PostgreSQL read it', () => {
  const runs = [{ directory: '', origin: 'postgres-1-1', segments: ['000000010000000000000001'] }];
  const directory = "/it's 100%/a\\b";
  const { content } = format.guide!({ stream: 'orders', directory, runs, until: { kind: 'latest' } });
  const [, command = ''] = /^restore_command = '(.*)'$/m.exec(content) ?? [];
  const read = command.replaceAll("''", "'").replaceAll('\\\\', '\\');
  const filled = read.replaceAll(
    /%(.)/g,
    (_, sign) => ({ '%': '%', f: 'FILE', p: 'pg_wal/RECOVERYXLOG' })[String(sign)]!,
  );
  expect(
    execFileSync('/bin/sh', ['-c', `echo() { printf '%s|' "$@"; }; ${filled.replace(/^cp/, 'echo')}`], {
      encoding: 'utf8',
    }),
  ).toBe(`${directory}/FILE|pg_wal/RECOVERYXLOG|`);
});

describe('one timeline', () => {
  let server: WalServer;
  beforeEach(async () => {
    server = made(WalServer.primary());
    write(server, 4);
    await ship(server);
  });

  test('comes back as whole files, the last one with zeros at its end, and recovers to the last commit', async () => {
    const { plan, dir } = await restored();
    expect(plan.runs).toMatchObject([{ directory: '', origin: expect.stringMatching(/^postgres-\d+-1$/) }]);
    for (const [name, bytes] of server.contents()) {
      const whole = Buffer.concat([bytes, Buffer.alloc(MIB - bytes.length)]);
      expect(whole.equals(await readFile(join(dir, name)))).toBe(true);
    }
    expect(recover(dir)).toEqual({ timeline: 1, commits: commitsOf(server) });
    expect(await guideIn(dir)).toContain(`restore_command = 'cp ''${dir}''/%f "%p"'`);
  });

  test('goes on after an interruption, over files that were padded too', async () => {
    const store = new FaultyStore(memory);
    const chunks = new ChunkReader({ store, info: archive.info });
    const plan = await planRestore({ chunks, format, until: { kind: 'latest' }, afterGap: false, progress: silent });
    const dir = join(root, 'again');
    const options = { chunks, format, directory: dir, progress: silent };
    const interrupted = async () => {
      throw new Error('interrupted');
    };
    await expect(restore(plan, { ...options, afterwards: interrupted })).rejects.toThrow('interrupted');
    const last = plan.runs[0]!.segments.at(-1)!;
    expect((await stat(join(dir, last.name))).size).toBe(MIB);
    expect(await restore(plan, options)).toBe(0);
    expect((await stat(join(dir, last.name))).size).toBe(MIB);
    expect(recover(dir).commits).toEqual(commitsOf(server));
  });

  test('goes on after an interruption where a promotion has made a second directory of it meanwhile', async () => {
    const dir = join(root, 'again');
    const options = { chunks: new ChunkReader(archive), format, directory: dir, progress: silent };
    const planned = () => planRestore({ ...options, until: { kind: 'latest' }, afterGap: false });
    const interrupted = async () => {
      throw new Error('interrupted');
    };
    await expect(restore(await planned(), { ...options, afterwards: interrupted })).rejects.toThrow('interrupted');
    const standby = made(server.standby());
    standby.promote();
    write(standby, 1);
    await ship(standby);
    for (let n = 0; n < 2; n++) {
      await expect(restore(await planned(), { ...options, afterwards: interrupted })).rejects.toThrow('interrupted');
    }
    expect(await restore(await planned(), options)).toBe(0);
    expect(recover(dir)).toEqual({ timeline: 2, commits: commitsOf(standby) });
  });

  test('up to a time: everything before the first commit that is later, and no more segments than that takes', async () => {
    const commits = commitsOf(server);
    const target = commits[3]!;
    const { plan, dir } = await restored({ until: timeOf(target) });
    expect(recover(dir).commits).toEqual(commits.slice(0, 4));
    expect(plan).toMatchObject({ segments: 3, beyondArchive: false });
    expect(plan.end.timeMs).toBe(Math.floor(target.micros / 1000));
    expect((await recovered({ until: timeOf(target, -1) })).commits).toEqual(commits.slice(0, 3));
  });

  test('up to a time later than all of it: everything, with no target that PostgreSQL could miss', async () => {
    const { plan, dir } = await restored({ until: timeOf(commitsOf(server).at(-1)!, 1) });
    expect(plan.beyondArchive).toBe(true);
    expect(recover(dir).commits).toEqual(commitsOf(server));
  });

  test('up to an LSN, with or without its timeline', async () => {
    const commits = commitsOf(server);
    const target = lsnText(commits[2]!.start);
    expect((await recovered({ until: target })).commits).toEqual(commits.slice(0, 3));
    expect((await recovered({ until: `1/${target}` })).commits).toEqual(commits.slice(0, 3));
  });

  test('up to its very end, which ls shows: everything', async () => {
    const { plan: all } = await restored();
    const { plan, dir } = await restored({ until: all.end.id! });
    expect(plan.bytes).toBe(all.bytes);
    expect(recover(dir).commits).toEqual(commitsOf(server));
    await expect(restored({ until: lsnText(server.flushed + 8n) })).rejects.toMatchObject({ code: 'NOT_IN_ARCHIVE' });
    await expect(restored({ until: `2/${lsnText(server.flushed)}` })).rejects.toMatchObject({ code: 'NOT_IN_ARCHIVE' });
  });

  test('from a base backup’s start LSN on: the segments from the one that holds it', async () => {
    const commits = commitsOf(server);
    const { plan, dir } = await restored({ from: lsnText(commits[4]!.start) });
    expect(plan.runs[0]!.segments.map(({ name }) => name)).toEqual([...server.contents().keys()].slice(1));
    expect(recover(dir).commits).toEqual(commits.slice(3));
  });
});

describe('a promotion', () => {
  let old: WalServer;
  let standby: WalServer;

  /** The old primary ships more than its standby received. */
  async function failOver({ deadBytes = 400_000 } = {}): Promise<void> {
    old = made(WalServer.primary());
    write(old, 2);
    standby = made(old.standby());
    if (deadBytes > 0) old.transaction({ bytes: deadBytes });
    await ship(old);
    standby.promote();
    write(standby, 2);
    await ship(standby);
  }

  test('gives a directory a timeline, and all names at the top; it recovers along the living one', async () => {
    await failOver();
    const { plan, dir } = await restored();
    expect(plan.runs.map(({ directory }) => directory)).toEqual([
      expect.stringMatching(/^01-postgres-\d+-1$/),
      expect.stringMatching(/^02-postgres-\d+-2$/),
    ]);
    const names = plan.runs.flatMap((run) => run.segments.map(({ name }) => ({ name, in: run.directory })));
    expect(names.map(({ name }) => name)).toContain('00000002.history');
    for (const { name, in: directory } of names) {
      expect(await readlink(join(dir, name))).toBe(join(directory, name));
      expect((await lstat(join(dir, directory, name))).isFile()).toBe(true);
    }
    expect(recover(dir)).toEqual({ timeline: 2, commits: commitsOf(standby) });
  });

  test('a time that only the dead tail passed before the promotion is looked for on the living timeline', async () => {
    await failOver();
    const dead = commitsOf(old).at(-1)!;
    const living = commitsOf(standby);
    const last = living.findLastIndex(({ micros }) => micros < dead.micros);
    expect(await recovered({ until: timeOf(living[last]!) })).toEqual({
      timeline: 2,
      commits: living.slice(0, last + 1),
    });
  });

  test('an LSN of the dead tail means the living timeline, unless the dead one is named', async () => {
    await failOver();
    const dead = lsnText(commitsOf(old).at(-1)!.start);
    const found = await recovered({ until: dead });
    expect(found.timeline).toBe(2);
    expect(found.commits).toEqual(commitsOf(standby).filter(({ start }) => lsnText(start) <= dead));
    await expect(restored({ until: `1/${dead}` })).rejects.toMatchObject({
      code: 'NOT_IN_ARCHIVE',
      message: expect.stringMatching(/timeline 1 was left at 0\/3/),
    });
    await expect(restored({ from: `1/${dead}` })).rejects.toMatchObject({ code: 'NOT_IN_ARCHIVE' });
    expect((await recovered({ until: `1/${dead}`, throughTerm: 2 })).commits).toEqual(commitsOf(old));
  });

  test('a target before it needs the old timeline only', async () => {
    await failOver();
    const commits = commitsOf(standby);
    const found = await restored({ until: timeOf(commits[2]!) });
    expect(found.plan.runs).toHaveLength(1);
    expect(recover(found.dir)).toEqual({ timeline: 1, commits: commits.slice(0, 3) });
  });

  test('what the archive lacks of the old timeline is found in the first segment of the new one', async () => {
    old = made(WalServer.primary());
    write(old, 2);
    await ship(old);
    old.transaction({ bytes: 50_000 });
    old.transaction({ bytes: 50_000 });
    standby = made(old.standby());
    standby.promote();
    write(standby, 1);
    await ship(standby);
    const commits = commitsOf(standby);
    const index = commits.findIndex(({ start }) => start > old.flushed - 60_000n);
    for (const until of [
      `1/${lsnText(commits[index]!.start)}`,
      lsnText(commits[index]!.start),
      timeOf(commits[index]!),
    ]) {
      expect(await recovered({ until })).toEqual({ timeline: 2, commits: commits.slice(0, index + 1) });
    }
  });

  test('a base backup of the new timeline gets its history file too', async () => {
    await failOver();
    standby.switchLog();
    standby.transaction();
    await ship(standby, 20_000);
    const commits = commitsOf(standby);
    const from = commits.at(-2)!;
    for (const start of [lsnText(from.start), `2/${lsnText(from.start)}`]) {
      const { plan, dir } = await restored({ from: start });
      expect(plan.runs[0]!.segments.map(({ name }) => name)[0]).toBe('00000002.history');
      expect(recover(dir)).toMatchObject({ timeline: 2 });
      expect(recover(dir).commits.at(-1)).toEqual(commits.at(-1));
      expect(plan.segments).toBeLessThan(5);
    }
  });
});

type Step = 'small' | 'large' | 'switch' | 'ship' | 'failOver' | 'failOverBehind';
const steps = fc.array(
  fc.constantFrom<Step>('small', 'small', 'large', 'large', 'switch', 'ship', 'failOver', 'failOverBehind'),
  { minLength: 5, maxLength: 20 },
);

/** Returns the server that is the primary in the end. */
async function carryOut(all: readonly Step[]): Promise<WalServer> {
  let server = made(WalServer.primary());
  let before = server.flushed;
  for (const step of all) {
    if (step === 'small' || step === 'large') {
      before = server.flushed;
      server.transaction({ bytes: step === 'small' ? 500 : 400_000 });
    } else if (step === 'switch') {
      server.switchLog();
    } else if (step === 'ship') {
      await ship(server);
    } else {
      const standby = made(server.standby(step === 'failOver' ? server.flushed : before));
      standby.promote();
      server = standby;
      before = server.flushed;
      server.transaction();
    }
  }
  server.transaction();
  await ship(server);
  server.transaction();
  await ship(server);
  return server;
}

test('after any history each commit of the living one can be recovered to, by its time and by its LSN', async () => {
  await fc.assert(
    fc.asyncProperty(steps, fc.nat(), fc.nat(), async (all, targetSeed, fromSeed) => {
      memory = new MemoryStore();
      archive = await createArchive(memory, 'orders', 'postgres');
      const server = await carryOut(all);
      const commits = commitsOf(server);
      expect((await recovered()).commits).toEqual(commits);

      const target = targetSeed % (commits.length - 1);
      const expected = commits.slice(0, target + 1);
      const { micros, start } = commits[target]!;
      expect((await recovered({ until: new Date(micros / 1000).toISOString() })).commits).toEqual(expected);
      expect((await recovered({ until: lsnText(start) })).commits).toEqual(expected);

      const first = fromSeed % expected.length;
      const some = await recovered({ from: lsnText(expected[first]!.start), until: lsnText(start) });
      expect(some.commits.length).toBeGreaterThanOrEqual(expected.length - first);
      expect(some.commits).toEqual(expected.slice(-some.commits.length));
    }),
    { numRuns: 4 },
  );
}, 120_000);
