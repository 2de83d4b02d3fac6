import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { parse, stringify } from 'yaml';
import { SHIPMATE } from '../helpers/daemon.ts';

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'shipmate-cli-'));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `shipmate`; nothing of this machine's configuration reaches it. */
async function shipmate(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Outcome> {
  const child = spawn(SHIPMATE, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env.PATH, HOME: dir, ...env },
  });
  const said = { stdout: '', stderr: '' };
  for (const channel of ['stdout', 'stderr'] as const) {
    child[channel].setEncoding('utf8').on('data', (text: string) => {
      said[channel] += text;
    });
  }
  const [code] = await once(child, 'close');
  return { code, ...said };
}

async function configFile(content: string | object): Promise<string> {
  const file = join(dir, `${Math.random().toString(36).slice(2)}.yaml`);
  await writeFile(file, typeof content === 'string' ? content : stringify(content));
  return file;
}

const solo = (more: object = {}) => ({
  cluster: 'acme',
  node: 'db-1',
  stateDir: '/nowhere/state',
  coordination: 'solo',
  stores: { main: { type: 'file', path: '/nowhere/store' } },
  streams: { orders: { source: { type: 'mariadb', dir: '/nowhere/mysql' }, store: 'main' } },
  ...more,
});

/** Exactly two lines, `error: …` and `hint: …`, and no stack trace. */
function expectComplaint({ stderr }: Outcome, error: string | RegExp, hint?: string | RegExp): void {
  const [first, second, ...rest] = stderr.split('\n');
  expect(first).toMatch(/^error: /);
  expect(first).toMatch(error);
  expect(second).toMatch(/^hint: ./);
  if (hint !== undefined) expect(second).toMatch(hint);
  expect(rest).toEqual(['']);
}

describe('wrong usage ends with 2, and says what was meant', () => {
  test.each<[string, string[], string, string]>([
    ['no command', [], 'no command given', '"shipmate --help"'],
    ['a misspelt command', ['stauts'], "unknown command 'stauts'", 'did you mean "status"?'],
    ['help with a misspelt command', ['help', 'stauts'], "unknown command 'stauts'", 'did you mean "status"?'],
    ['a command of a later version', ['snapshot'], "unknown command 'snapshot'", '"shipmate --help"'],
    ['a misspelt option', ['status', '--jsn'], "unknown option '--jsn'", 'did you mean "--json"?'],
    ['a missing argument', ['handover'], "missing required argument 'stream'", '"shipmate handover --help"'],
    ['an argument too many', ['status', 'orders'], 'too many arguments', '"shipmate status --help"'],
    ['an option without its value', ['handover', 'orders', '--to'], 'argument missing', '"shipmate handover --help"'],
    ['a misspelt subcommand', ['config', 'exmple'], "unknown command 'exmple'", 'did you mean "example"?'],
    ['half a command', ['config'], 'no command given', '"shipmate config --help"'],
  ])('%s', async (_, args, error, hint) => {
    const outcome = await shipmate(args);
    expect(outcome.code).toBe(2);
    expect(outcome.stdout).toBe('');
    expectComplaint(outcome, error, hint);
  });
});

describe('a wrong config ends with 2, and names the place', () => {
  test('a file that is not there', async () => {
    const outcome = await shipmate(['status', '-c', '/nowhere/shipmate.yaml']);
    expect(outcome.code).toBe(2);
    expectComplaint(outcome, 'config file /nowhere/shipmate.yaml does not exist', 'shipmate config example');
  });

  test('the default file, when nothing names another', async () => {
    expectComplaint(await shipmate(['status']), '/etc/shipmate/shipmate.yaml');
    expectComplaint(await shipmate(['status'], { SHIPMATE_CONFIG: '' }), '/etc/shipmate/shipmate.yaml');
  });

  test('the file that $SHIPMATE_CONFIG names, unless -c names another', async () => {
    const [one, other] = [await configFile('cluster: 1'), await configFile('cluster: 2')];
    expectComplaint(await shipmate(['status'], { SHIPMATE_CONFIG: one }), one);
    expectComplaint(await shipmate(['status', '--config', other], { SHIPMATE_CONFIG: one }), other);
    expectComplaint(await shipmate(['-c', other, 'status'], { SHIPMATE_CONFIG: one }), other);
  });

  test.each<[string, object | string, string, string]>([
    ['bad YAML', 'a: [', 'not valid YAML', ''],
    ['a misspelt key', { ...solo(), clustre: 'x' }, 'clustre: unknown key', 'did you mean "cluster"?'],
    ['a wrong type', { ...solo(), cluster: 3 }, 'cluster: must be text', ''],
    [
      'a plan that counts one store twice',
      { ...solo(), plans: { gold: { primary: 'main', copies: ['main'] } } },
      'plans.gold.copies: must not name the primary',
      '',
    ],
    [
      'guarantees that the link cannot keep',
      { ...solo(), limits: { link: '10MiB/s', classes: { slow: '6MiB/s' } } },
      'limits: guarantees more than the link of 10 MiB/s can carry: shipping 5.0 MiB/s (50%), slow 6.0 MiB/s',
      'lower a guarantee',
    ],
  ])('%s', async (_, config, error, hint) => {
    const outcome = await shipmate(['run', '-c', await configFile(config)]);
    expect(outcome.code).toBe(2);
    expectComplaint(outcome, error, hint);
  });

  test('a missing environment variable', async () => {
    const path = '/mnt/$'.concat('{BACKUP}');
    const outcome = await shipmate(['run', '-c', await configFile(solo({ stores: { main: { type: 'file', path } } }))]);
    expect(outcome.code).toBe(2);
    expectComplaint(outcome, 'stores.main.path: environment variable BACKUP is not set', 'set BACKUP');
  });

  test('one that adopt needs, before it asks anything', async () => {
    const source = { type: 'mariadb', dir: '/binlogs', url: 'mariadb://$'.concat('{DB_USER}@localhost') };
    const config = await configFile(solo({ streams: { orders: { source, store: 'main' } } }));
    const outcome = await shipmate(['adopt', 'orders', '--yes', '-c', config]);
    expect(outcome).toMatchObject({ code: 2, stdout: '' });
    expectComplaint(outcome, 'streams.orders.source.url: environment variable DB_USER is not set', 'set DB_USER');
  });

  test('a wrong log level', async () => {
    const outcome = await shipmate(['status', '-c', await configFile(solo())], { SHIPMATE_LOG_LEVEL: 'loud' });
    expect(outcome.code).toBe(2);
    expectComplaint(outcome, 'SHIPMATE_LOG_LEVEL is "loud"', 'debug');
  });

  test('debugging adds where the error comes from', async () => {
    const { stderr } = await shipmate(['status', '-c', '/nowhere'], { SHIPMATE_LOG_LEVEL: 'debug' });
    expect(stderr).toMatch(/^error: .*\nhint: .*\n[\s\S]*at /);
  });
});

describe('what only prints', () => {
  test('--help lists the commands, and ends with 0', async () => {
    const { code, stdout, stderr } = await shipmate(['--help']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    for (const command of ['run', 'status', 'handover', 'accept-gap', 'accept-fork', 'config']) {
      expect(stdout).toMatch(new RegExp(`^ {2}${command} `, 'm'));
    }
  });

  test.each([
    ['status', '--help'],
    ['help', 'status'],
  ])('%s %s tells its options and -c', async (...args) => {
    const { code, stdout } = await shipmate(args);
    expect(code).toBe(0);
    for (const option of ['--watch', '--json', '-c, --config']) expect(stdout).toContain(option);
  });

  test('--version', async () => {
    expect(await shipmate(['--version'])).toEqual({
      code: 0,
      stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/),
      stderr: '',
    });
  });

  test('config example is YAML', async () => {
    const { code, stdout } = await shipmate(['config', 'example']);
    expect(code).toBe(0);
    expect(Object.keys(parse(stdout))).toEqual(['cluster', 'coordination', 'stores', 'streams', 'admin']);
  });

  test('config schema is a JSON schema that knows the keys', async () => {
    const { code, stdout } = await shipmate(['config', 'schema']);
    const schema = JSON.parse(stdout);
    expect(code).toBe(0);
    expect(schema.$schema).toContain('json-schema.org');
    expect(Object.keys(schema.properties)).toEqual(expect.arrayContaining(['cluster', 'stores', 'streams', 'admin']));
    expect(schema.required).not.toContain('node');
  });

  test('reaches its reader whole, however much it is', async () => {
    const names = Array.from({ length: 5_000 }, (_, number) => `stream-${number}`);
    const streams = Object.fromEntries(names.map((name) => [name, solo().streams.orders]));
    const { code, stdout } = await shipmate(['status', '--json', '-c', await configFile(solo({ streams }))]);
    expect(code).toBe(0);
    expect(JSON.parse(stdout).streams).toHaveLength(names.length);
  });

  test('that can not be written is told of', async () => {
    const child = spawn('sh', ['-c', '"$0" config schema >/dev/full', SHIPMATE], { stdio: ['ignore', 'pipe', 'pipe'] });
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    const [code] = await once(child, 'close');
    expect(code).toBe(1);
    expectComplaint({ code, stdout: '', stderr }, /could not be written: ENOSPC/);
  });

  test('a reader that leaves early is no error', async () => {
    const child = spawn('bash', ['-c', `"$0" config schema | true; echo "\${PIPESTATUS[0]}"`, SHIPMATE], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let said = '';
    for (const channel of [child.stdout, child.stderr]) {
      channel.setEncoding('utf8').on('data', (text: string) => {
        said += text;
      });
    }
    await once(child, 'close');
    expect(['0\n', '141\n']).toContain(said); // 0 where everything was written before the reader left
  });
});

test('ls tells of every stream that it can read, and of those that it can not', async () => {
  const stores = { main: { type: 'file', path: resolve('test/fixtures/archive-v1/mariadb') } };
  const { orders } = solo().streams;
  const config = await configFile(solo({ stores, streams: { billing: orders, orders } }));
  const listed = await shipmate(['ls', '--json', '-c', config]);
  expect(JSON.parse(listed.stdout).streams).toMatchObject([{ stream: 'orders' }]);
  expect(listed.code).toBe(1);
  expectComplaint(listed, /store main holds no archive of stream billing/);
});

test.each(['accept-gap', 'accept-fork'])('%s does not act unasked where there is nobody to ask', async (command) => {
  const outcome = await shipmate([command, 'orders', '-c', await configFile(solo())]);
  expect(outcome.code).toBe(2);
  expectComplaint(outcome, 'there is no terminal to ask on', '--yes');
});
