import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { afterEach, expect, test } from '@jest/globals';
import { ReplicaDuty } from '../../src/source/mariadb/replica-duty.ts';
import { connectionOptions } from '../../src/source/mariadb/sql.ts';

const log = { debug() {}, info() {}, warn() {}, error() {} };
const sockets = new Set<Socket>();
let listening: Server | null = null;

afterEach(() => {
  for (const socket of sockets) socket.destroy();
  sockets.clear();
  listening?.close();
});

async function dutyAt(onConnection: (socket: Socket) => void): Promise<ReplicaDuty> {
  listening = createServer((socket) => {
    sockets.add(socket.on('error', () => {}));
    onConnection(socket);
  }).listen(0, '127.0.0.1');
  await once(listening, 'listening');
  const { port } = listening.address() as AddressInfo;
  return new ReplicaDuty({ url: `mariadb://shipmate@127.0.0.1:${port}`, flavour: 'mariadb', log });
}

test('a server that has not said yet what its binlogs hold keeps its twin from taking over', async () => {
  const duty = await dutyAt(() => {});
  expect(await duty.lacking()).toContain('has not said yet');
  expect(await duty.lacking()).toContain('has not said yet');
});

test('one that is down does not: its twin ships what is left', async () => {
  const duty = await dutyAt((socket) => socket.destroy());
  expect(await duty.lacking()).toBeNull();
});

test('the server is reached by an IPv6 address, and with a password that holds any characters', () => {
  expect(connectionOptions('mariadb://shipmate:a%40b@[::1]:3307')).toMatchObject({
    ...{ host: '::1', port: 3307, user: 'shipmate', password: 'a@b' },
  });
  expect(connectionOptions('mariadb://shipmate:50%off@db-1')).toMatchObject({ host: 'db-1', password: '50%off' });
});
