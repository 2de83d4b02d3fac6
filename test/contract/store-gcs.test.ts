import { openGcsStore } from '../../src/store/gcs.ts';
import { startGcsDouble } from '../helpers/gcs-double.ts';
import { storeContract } from './store.contract.ts';

for (const prefix of ['', 'prod/eu']) {
  storeContract(`the GCS store ${prefix ? 'with a prefix' : 'at its root'}`, async () => {
    const double = await startGcsDouble();
    return {
      client: () => openGcsStore({ name: 'main', bucket: 'archive', prefix, apiEndpoint: double.url }),
      close: () => double.stop(),
    };
  });
}
