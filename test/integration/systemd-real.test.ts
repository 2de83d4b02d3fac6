import { appendFile, copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { asShipped } from '../helpers/binlog.ts';
import { startMariadb } from '../helpers/mariadb.ts';
import { noSystemd, RealSystemd } from '../helpers/real-systemd.ts';
import { until } from '../helpers/wait.ts';

jest.setTimeout(300_000);

const CONFIG = `
node: db-1
cluster: acme
coordination: solo
stores: { nas: { type: file, path: /mnt/backup } }
streams:
  orders: { source: { type: mariadb, dir: /var/lib/mysql }, store: nas, chunk: { maxDelay: 20ms } }
`;
const DROP_INS = join(import.meta.dirname, '..', '..', 'deploy', 'systemd', 'drop-ins');

/** The unit as it stands, with the drop-ins that docs/systemd.md names, under a systemd of its own. */
function underSystemd() {
  let dir: string;
  let systemd: RealSystemd;

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'shipmate-real-systemd-'));
    await Promise.all(['drop-ins', 'mysql'].map((name) => mkdir(join(dir, name))));
    await writeFile(join(dir, 'shipmate.yaml'), CONFIG);
    for (const name of ['mariadb.conf', 'directory-store.conf']) {
      await copyFile(join(DROP_INS, name), join(dir, 'drop-ins', name));
    }
    await writeFile(join(dir, 'drop-ins', 'test.conf'), '[Service]\nWatchdogSec=10s\n');
    await writeBinlogs(join(dir, 'mysql'));
    systemd = await RealSystemd.boot(dir);
  });
  afterAll(async () => {
    await systemd?.end();
    await rm(dir, { recursive: true, force: true });
  });

  test('it reads what only the group mysql may read, ships it, and systemd knows how it stands', async () => {
    await systemd.shows('ActiveState', /^active$/);
    await systemd.shows('StatusText', /^orders: master of term 1$/);
    expect(await systemd.journal()).toMatch(/^orders: role: master$/m);
    await systemd.run('shipmate', 'restore', 'orders', '--to', '/run/restored');
    const [restored, own] = await Promise.all([
      readFile(systemd.path('/run/restored/binlog.000001')),
      readFile(join(dir, 'mysql', 'binlog.000001')),
    ]);
    expect(restored.equals(asShipped(own))).toBe(true);
  });

  test('it may write nothing else, and has no rights beyond its user', async () => {
    const inside = [`--target=${await systemd.show('MainPID')}`, '--mount'];
    for (const path of ['/etc/x', '/var/lib/mysql/x', '/var/lib/x', '/usr/bin/x']) {
      await expect(systemd.run('nsenter', ...inside, 'touch', path)).rejects.toThrow('Read-only file system');
    }
    const status = await systemd.run('cat', `/proc/${await systemd.show('MainPID')}/status`);
    expect(status).toMatch(/^CapBnd:\s+0+$/m);
    expect(status).toMatch(/^NoNewPrivs:\s+1$/m);
    expect(status).toMatch(/^Seccomp:\s+2$/m);
  });

  test('a reload is taken over, and a bad one refused: the status and the journal say why', async () => {
    const file = systemd.path('/etc/shipmate/shipmate.yaml');
    await appendFile(file, 'log: { level: debug }\n');
    await systemd.run('systemctl', 'reload', 'shipmate');
    await systemd.shows('ActiveState', /^active$/);
    await until('it was reloaded', async () => (await systemd.journal()).includes('the config was reloaded'));
    await appendFile(file, 'limit: { link: 50MiB/s }\n');
    await systemd.run('systemctl', 'reload', 'shipmate');
    const line = CONFIG.split('\n').length + 1;
    await systemd.shows(
      'StatusText',
      new RegExp(`^the config was refused, .*shipmate.yaml, line ${line}: limit: unknown key`),
    );
    await systemd.shows('ActiveState', /^active$/);
    expect(await systemd.journal('--priority=err')).toMatch(
      /^the config was not reloaded, .* hint="did you mean \\"limits\\"\?"$/m,
    );
    expect(await systemd.show('NRestarts')).toBe('0');
    await writeFile(file, CONFIG);
  });

  test('hanging, it misses its watchdog and is started anew', async () => {
    await systemd.run('kill', '-STOP', await systemd.show('MainPID'));
    await systemd.shows('NRestarts', /^1$/);
    await systemd.shows('StatusText', /^orders: master of term \d$/);
    expect(await systemd.show('ActiveState')).toBe('active');
  });

  test('it stops in order', async () => {
    await systemd.run('systemctl', 'stop', 'shipmate');
    expect(await systemd.show('ActiveState')).toBe('inactive');
    expect(await systemd.show('Result')).toBe('success');
  });
}

/** As a server leaves them: nobody but its user and its group may read them once they are installed. */
async function writeBinlogs(to: string): Promise<void> {
  const mariadb = await startMariadb();
  try {
    await mariadb.query('CREATE DATABASE shop');
    await mariadb.shutDown();
    for (const name of ['binlog.index', 'binlog.000001']) await copyFile(join(mariadb.dataDir, name), join(to, name));
  } finally {
    await mariadb.stop();
  }
}

if (noSystemd === null) describe('shipmate.service under a real systemd', underSystemd);
else {
  process.stderr.write(`      skipped: ${noSystemd}\n`);
  describe('shipmate.service under a real systemd', () => test.skip(noSystemd!, () => {}));
}
