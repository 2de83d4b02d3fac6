import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const UNITS = join(ROOT, 'deploy', 'systemd');
const DROP_INS = join(UNITS, 'drop-ins');

const read = (name: string) => readFileSync(join(UNITS, name), 'utf8');

describe.each(['shipmate.service', 'shipmate@.service'])('%s', (name) => {
  test('is sandboxed to 2.0 or better', () => {
    const security = ['security', '--offline=true', '--threshold=20', '--no-pager', join(UNITS, name)];
    const said = execFileSync('systemd-analyze', security, { encoding: 'utf8' }); // throws above the threshold
    expect(said).toMatch(/Overall exposure level for shipmate(@\w+)?\.service: [01]\.\d|: 2\.0/);
  });
});

test.each(['shipmate.service', 'shipmate@.service', ...readdirSync(DROP_INS).map((name) => join('drop-ins', name))])(
  '%s leaves alone the IPC objects of its user, who may be postgres: a running server has its shared memory there',
  (name) => {
    expect(read(name)).not.toMatch(/^RemoveIPC\s*=/im); // no is what systemd does by itself
  },
);

test('the template differs from the unit in what an instance has for itself alone', () => {
  const unit = read('shipmate.service').split('\n');
  const template = read('shipmate@.service').split('\n');
  expect(template.filter((line) => !unit.includes(line))).toEqual([
    'Description=Shipmate, ships the log of %i to object storage',
    'ExecStart=/usr/bin/shipmate run --init -c /etc/shipmate/%i.yaml',
    'EnvironmentFile=-/etc/default/shipmate-%i',
    'StateDirectory=shipmate/%i',
    'CacheDirectory=shipmate/%i',
    'Environment=NODE_COMPILE_CACHE=%C/shipmate/%i',
  ]);
  // An instance is enabled by its own name alone: only the unit may be enabled before it is configured.
  const own =
    /^(#|(ConditionPathExists|Description|ExecStart|EnvironmentFile|StateDirectory|CacheDirectory|Environment)=)/;
  expect(unit.filter((line) => !template.includes(line) && !own.test(line))).toEqual([]);
});

describe('systemd finds nothing wrong with it', () => {
  let dir = '';
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'shipmate-units-'));
  });
  afterAll(() => rmSync(dir, { recursive: true }));

  /** Where the package puts the program there need be none yet. */
  function verify(dropIn: string | null) {
    const program = join(dir, 'shipmate');
    writeFileSync(program, '');
    chmodSync(program, 0o755);
    const files = ['shipmate.service', 'shipmate@orders.service'].map((name) => {
      const text = read(name.replace('orders', '')).replaceAll('=/usr/bin/shipmate', `=${program}`);
      writeFileSync(join(dir, name), text);
      const folder = join(dir, `${name}.d`);
      rmSync(folder, { recursive: true, force: true });
      mkdirSync(folder);
      if (dropIn !== null) writeFileSync(join(folder, dropIn), readFileSync(join(DROP_INS, dropIn)));
      return join(dir, name);
    });
    const { status, stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', ...files], { encoding: 'utf8' });
    return { status, stderr };
  }

  test.each([null, ...readdirSync(DROP_INS)])('with drop-in %s', (dropIn) => {
    expect(verify(dropIn)).toEqual({ status: 0, stderr: '' });
  });
});
