import { loadConfig } from '../../src/config.ts';
import { messageOf } from '../../src/errors.ts';
import { startDaemon } from '../../src/wiring/daemon.ts';
import { faultyStoreFromFile } from '../fakes/faulty-store.ts';

/**
 * `shipmate run --init -c CONFIG`, but for its stores: they obey the FaultPlan in the file that SHIPMATE_TEST_FAULTS
 * names. Everything else is the daemon's own wiring.
 */
const configFile = process.argv.at(process.argv.indexOf('-c') + 1) ?? '';
const config = await loadConfig(configFile);
const controlFile = process.env.SHIPMATE_TEST_FAULTS ?? '';
const told = new Promise<void>((resolve) => {
  process.once('SIGTERM', () => resolve());
});
try {
  const decorateStore = (store: Parameters<typeof faultyStoreFromFile>[0]) => faultyStoreFromFile(store, controlFile);
  const daemon = await startDaemon(config, { init: true, decorateStore });
  process.on('SIGHUP', () => void daemon.reload((running) => loadConfig(configFile, { running })));
  try {
    await Promise.race([daemon.done, told]);
  } finally {
    await daemon.stop();
  }
  process.exit(0);
} catch (error) {
  process.stderr.write(`error: ${messageOf(error)}\n`);
  process.exit(1);
}
