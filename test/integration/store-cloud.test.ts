import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { differences, readBinlogs } from '../helpers/archive.ts';
import { startAzurite } from '../helpers/azurite.ts';
import { BinlogDir } from '../helpers/binlog.ts';
import { prepareDaemon, shipmate } from '../helpers/daemon.ts';
import { until } from '../helpers/wait.ts';

test('a daemon ships to a container of Azure, check is content, and what was shipped is restored', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'shipmate-azure-'));
  const azurite = await startAzurite();
  const binlogs = new BinlogDir();
  binlogs.start();
  const { connectionStringFile } = azurite;
  const daemon = await prepareDaemon({
    node: 'db-1',
    dir: join(dir, 'db-1'),
    storePath: dir,
    store: { type: 'azure', container: await azurite.newContainer(), prefix: 'prod', connectionStringFile },
    source: { dir: binlogs.dir },
  });
  try {
    const { stdout } = await shipmate(daemon.configFile, 'check', '--json');
    const { findings }: { findings: { about: string; level: string; message: string }[] } = JSON.parse(stdout);
    const said = findings.filter(({ about }) => about === 'store main').map(({ level, message }) => [level, message]);
    expect(said).toEqual([
      ['ok', 'it can be read and listed'],
      ['ok', 'creates an object only where its name is free'],
    ]);
    await daemon.start();
    for (let n = 0; n < 20; n++) binlogs.transaction({ bytes: 3_000 });
    const to = join(dir, 'restored');
    const restored = async () => {
      await rm(to, { recursive: true, force: true });
      await mkdir(to);
      const { code } = await shipmate(daemon.configFile, 'restore', 'orders', '--to', to);
      return code === 0 && differences(await readBinlogs(binlogs.dir), await readBinlogs(to)).length === 0;
    };
    await until('all is in the container', restored, { describe: () => daemon.tail() });
    expect((await shipmate(daemon.configFile, 'verify', 'orders', '--deep')).code).toBe(0);
  } finally {
    await daemon.kill();
    await azurite.stop();
    binlogs.remove();
    await rm(dir, { recursive: true, force: true });
  }
});
