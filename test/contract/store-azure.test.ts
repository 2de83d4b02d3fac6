import { afterAll, beforeAll } from '@jest/globals';
import { openAzureStore } from '../../src/store/azure.ts';
import { type Azurite, startAzurite } from '../helpers/azurite.ts';
import { storeContract } from './store.contract.ts';

let server: Azurite;
beforeAll(async () => {
  server = await startAzurite();
}, 60_000);
afterAll(() => server?.stop());

storeContract('the Azure store on Azurite', async () => {
  const container = await server.newContainer();
  const { connectionStringFile } = server;
  return {
    client: () => openAzureStore({ name: 'main', container, prefix: 'prod/eu', connectionStringFile }),
    close: async () => {},
  };
});
