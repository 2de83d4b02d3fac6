import { readFile, writeFile } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { openAzureStore } from '../../src/store/azure.ts';
import { type Azurite, startAzurite } from '../helpers/azurite.ts';
import { storeContract } from './store.contract.ts';

let server: Azurite;
beforeAll(async () => {
  server = await startAzurite();
}, 120_000);
afterAll(() => server?.stop());

storeContract('the Azure store on Azurite', async () => {
  const container = await server.newContainer();
  const { connectionStringFile } = server;
  return {
    client: () => openAzureStore({ name: 'main', container, prefix: 'prod/eu', connectionStringFile }),
    close: async () => {},
  };
});

describe('the Azure store on Azurite', () => {
  const never = new AbortController().signal;
  const open = (container: string, connectionStringFile = server.connectionStringFile) =>
    openAzureStore({ name: 'main', container, connectionStringFile, pieceBytes: 1 << 20 });

  test('has one winner among creators of a name in blocks, from memory or a stream', async () => {
    const container = await server.newContainer();
    const body = (byte: number) => Buffer.alloc((3 << 20) + byte, byte);
    const bodies = [body(1), () => Readable.from([body(2)]), body(3), () => Readable.from([body(4)])];
    const outcomes = await Promise.all(bodies.map((one) => open(container).create('long', one, never)));
    expect([...outcomes].sort()).toEqual(['created', 'exists', 'exists', 'exists']);
    const winner = outcomes.indexOf('created') + 1;
    expect(await open(container).head('long')).toEqual({ key: 'long', size: (3 << 20) + winner });
    expect(await open(container).readStart('long', 1)).toEqual(Buffer.from([winner]));
  });

  test('takes up an account key that was rotated when the old one is refused', async () => {
    const container = await server.newContainer();
    const right = await readFile(server.connectionStringFile, 'utf8');
    const file = `${server.connectionStringFile}-rotated`;
    await writeFile(file, right.replace(/AccountKey=[^;]*/, 'AccountKey=d3Jvbmc='));
    const store = open(container, file);
    await expect(store.head('key')).rejects.toMatchObject({ code: 'STORE_DENIED' });
    await writeFile(file, right);
    expect(await store.head('key')).toBeNull();
  });

  test('tells a container that is not there, a key that is refused, and one that is not there, without the key', async () => {
    await expect(open('acme-lgos').head('key')).rejects.toMatchObject({ code: 'STORE_MISSING' });
    const container = await server.newContainer();
    const right = await readFile(server.connectionStringFile, 'utf8');
    const other = `${server.connectionStringFile}-other`;
    for (const text of [right.replace(/AccountKey=[^;]*/, 'AccountKey=d3Jvbmc='), 'AccountKey=d3Jvbmc=']) {
      await writeFile(other, text);
      const failure = await open(container, other)
        .head('key')
        .catch((error: unknown) => error);
      expect(failure).toMatchObject({ code: 'STORE_DENIED', verdict: 'fatal' });
      expect(String(failure)).not.toContain('d3Jvbmc');
    }
  });
});
