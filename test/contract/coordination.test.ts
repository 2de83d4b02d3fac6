import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll } from '@jest/globals';
import { openEtcd } from '../../src/coordination/etcd.ts';
import { openSolo } from '../../src/coordination/solo.ts';
import { MemoryHub } from '../fakes/memory-coordination.ts';
import { type Etcd, startEtcd } from '../helpers/etcd.ts';
import { recordedLog } from '../helpers/recorded-log.ts';
import { describeCoordination } from './coordination.contract.ts';

let etcd: Etcd;
beforeAll(async () => {
  etcd = await startEtcd();
});
afterAll(() => etcd?.stop());

let clusters = 0;
describeCoordination('etcd', {
  twins: true,
  start: async () => {
    const cluster = `cluster-${clusters++}`;
    const { endpoints } = etcd;
    return {
      open: (node) => openEtcd({ cluster, node, endpoints, ttlMs: 10_000, onEtcdLoss: 'continue', log: recordedLog() }),
      stop: async () => {},
    };
  },
});

describeCoordination('solo', {
  twins: false,
  start: async () => {
    const stateDir = await mkdtemp(join(tmpdir(), 'shipmate-solo-'));
    return {
      open: (node) => openSolo({ node, stateDir }),
      stop: () => rm(stateDir, { recursive: true }),
    };
  },
});

describeCoordination('the fake', {
  twins: true,
  start: async () => {
    const hub = new MemoryHub();
    return { open: async (node) => hub.client(node), stop: async () => {} };
  },
});
