import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { stringify } from 'yaml';
import { SHIPMATE } from '../helpers/daemon.ts';
import { type Etcd, startEtcd } from '../helpers/etcd.ts';
import { StandIn } from '../helpers/stand-in.ts';
import { until } from '../helpers/wait.ts';

const run = promisify(execFile);

let dir: string;
let etcd: Etcd;
let master: StandIn;
let standby: StandIn;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'shipmate-terminal-'));
  etcd = await startEtcd();
  const twin = { cluster: 'acme', endpoints: etcd.endpoints };
  master = await StandIn.start({ ...twin, node: 'db-1' });
  await master.lead();
  standby = await StandIn.start({ ...twin, node: 'db-2' }, { ready: false, reason: GAP });
  await master.keepPublishing({ role: 'master', reason: 'master' });
  const config = {
    cluster: 'acme',
    coordination: { etcd: { endpoints: etcd.endpoints } },
    stores: { main: { type: 'file', path: '/nowhere' } },
    streams: { orders: { source: { type: 'mariadb', dir: '/nowhere' }, store: 'main' } },
  };
  await writeFile(join(dir, 'shipmate.yaml'), stringify(config));
});
afterAll(async () => {
  await tmux('kill-server').catch(() => {});
  await Promise.all([master, standby].map((daemon) => daemon?.leave()));
  await etcd?.stop();
  await rm(dir, { recursive: true, force: true });
});

const GAP = 'gap: binlog.000002 was purged before it was shipped, and nobody else has it any more';
const WATCH = () => `${SHIPMATE} status --watch -c ${join(dir, 'shipmate.yaml')}`;

/** A terminal emulator of this test alone. */
const tmux = async (...args: string[]) =>
  (await run('tmux', ['-S', join(dir, 'tmux'), '-f', '/dev/null', ...args])).stdout;
const screen = (...options: string[]) => tmux('capture-pane', '-p', '-t', 'it', ...options);
const type = (...keys: string[]) => tmux('send-keys', '-t', 'it', ...keys);
const state = async () => (await tmux('display-message', '-p', '-t', 'it', '#{alternate_on} #{cursor_flag}')).trim();
const shows = (what: string | RegExp) =>
  until(`the screen shows ${what}`, async () => {
    const text = await screen();
    return (typeof what === 'string' ? text.includes(what) : what.test(text)) ? text : null;
  });

async function openTerminal(columns: number, rows: number): Promise<void> {
  await tmux('kill-session', '-t', 'it').catch(() => {});
  await tmux(
    'new-session',
    '-d',
    '-c',
    dir,
    '-s',
    'it',
    '-x',
    String(columns),
    '-y',
    String(rows),
    'PS1="> " TERM=xterm-256color sh',
  );
  await shows('>');
}

test('status --watch: what needs a person first, at 80 columns, live, and the terminal is as it was when it ends', async () => {
  await openTerminal(80, 24);
  await type('stty -g > before; echo kept', 'Enter');
  await shows('kept');
  await type(WATCH(), 'Enter');
  const text = await shows('ARCHIVED UP TO');
  expect(await state()).toBe('1 0'); // the alternate screen, no cursor
  const lines = text.split('\n');
  expect(lines[0]).toMatch(/^cluster acme: 1 stream, 2 daemons; as of \d\d:\d\d:\d\d, \d+\.\d s ago$/);
  // In full: in the table it is cut.
  expect(text.replaceAll(/\s+/g, ' ')).toContain(`error orders: db-2 could not take over: ${GAP} `);
  expect(text.indexOf('error')).toBeLessThan(text.indexOf('STREAM'));

  await standby.publish({ ready: true, reason: 'resume: it is all there' });
  await shows(/^orders +db-2 +standby +yes .* resume: it is all there$/m);
  expect(await screen()).not.toContain('error');
  await shows('db-2 has told nothing for'); // it publishes no more, as a daemon that hangs

  await tmux('resize-window', '-t', 'it', '-x', '40', '-y', '8');
  const small = await shows('more lines: make the window higher');
  for (const line of small.split('\n')) expect(line.length).toBeLessThanOrEqual(40);

  await tmux('resize-window', '-t', 'it', '-x', '80', '-y', '24');
  await type('garbage', 'C-c');
  await until('the shell is back', async () => (await state()) === '0 1');
  await type('stty -g | cmp before - && echo same; echo code $?', 'Enter');
  const after = await shows('code 0');
  expect(after).toContain('same');
  expect(after).not.toContain('garbage');
}, 120_000);

test('while etcd does not answer, what was seen last stays, with its age', async () => {
  await openTerminal(120, 40);
  await type(WATCH(), 'Enter');
  await shows('ARCHIVED UP TO');
  etcd.nodes[0]!.freeze();
  try {
    const text = await shows(/no news since \d\d:\d\d:\d\d: etcd can't be reached/);
    expect(text).toMatch(/^orders +db-1 +3 +7 /m);
    await shows(/as of \d\d:\d\d:\d\d, ([4-9]|\d\d)\.?\d* s ago/);
  } finally {
    etcd.nodes[0]!.thaw();
  }
  await until('it goes on', async () => !(await screen()).includes('no news'));
  await type('q');
  await until('the shell is back', async () => (await state()) === '0 1');
}, 120_000);

test('colour on a terminal that wants it, and nowhere else', async () => {
  const status = `${SHIPMATE} status -c ${join(dir, 'shipmate.yaml')}`;
  const escapes = async (command: string, env: NodeJS.ProcessEnv) => {
    // In continuous integration (CI) Node takes no terminal for one with colours.
    const { TERM: _, NO_COLOR: __, FORCE_COLOR: ___, CI: ____, ...rest } = process.env;
    const { stdout } = await run('sh', ['-c', command], { env: { ...rest, ...env } });
    return stdout.includes('\x1b');
  };
  const onTerminal = `script -qec '${status}' /dev/null </dev/null`;
  expect(await escapes(onTerminal, { TERM: 'xterm-256color' })).toBe(true);
  expect(await escapes(onTerminal, { TERM: 'xterm-256color', NO_COLOR: '1' })).toBe(false);
  expect(await escapes(onTerminal, { TERM: 'dumb' })).toBe(false);
  expect(await escapes(status, { TERM: 'xterm-256color' })).toBe(false);
  expect(await escapes(status, { TERM: 'xterm-256color', FORCE_COLOR: '1' })).toBe(true);
}, 120_000);
