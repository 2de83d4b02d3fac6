import { describe, expect, test } from '@jest/globals';
import type { Standing } from '../../src/ship/stream.ts';
import { type Notification, openNotifier, takeNotifyAddress } from '../../src/systemd/notifier.ts';
import { Service } from '../../src/systemd/service.ts';
import { statusText } from '../../src/systemd/status-text.ts';
import { until } from '../helpers/wait.ts';

const master: Standing = {
  ...{ name: 'orders', role: 'master', term: 3, ready: true, reason: 'master', lagSeconds: 0, trouble: [] },
};

describe('the address of the service manager', () => {
  test('is taken out of the environment, so that no child has it', () => {
    const environment = {
      NOTIFY_SOCKET: '@manager',
      WATCHDOG_USEC: '30000000',
      WATCHDOG_PID: `${process.pid}`,
      HOME: '/',
    };
    expect(takeNotifyAddress(environment)).toEqual({ socket: '@manager', watchdogMs: 30_000 });
    expect(environment).toEqual({ HOME: '/' });
  });

  test("another process's watchdog is none of ours", () => {
    const environment = { NOTIFY_SOCKET: '/run/notify', WATCHDOG_USEC: '30000000', WATCHDOG_PID: '1' };
    expect(takeNotifyAddress(environment)).toEqual({ socket: '/run/notify', watchdogMs: null });
    expect(takeNotifyAddress({ NOTIFY_SOCKET: '/run/notify' })).toEqual({ socket: '/run/notify', watchdogMs: null });
    expect(takeNotifyAddress({ WATCHDOG_USEC: '30000000' })).toBeNull();
  });
});

test('a notifier that can not even start a program warns once, and never throws', async () => {
  const warnings: string[] = [];
  const log = { debug() {}, info() {}, warn: (message: string) => void warnings.push(message), error() {} };
  const notifier = openNotifier({ socket: '/nowhere', watchdogMs: null }, { log });
  // No program takes an argument with a zero byte: Node throws at once, as it does where memory is short.
  await notifier.tell({ STATUS: 'a\0b' });
  await notifier.tell({ STATUS: 'c\0d' });
  expect(warnings).toEqual([expect.stringContaining("systemd can't be told how the daemon is: ")]);
});

describe('STATUS', () => {
  test.each<[Partial<Standing>, string]>([
    [{}, 'orders: master of term 3'],
    [{ lagSeconds: 47 }, 'orders: master of term 3, 40 s behind'],
    [{ lagSeconds: 250 }, 'orders: master of term 3, 4 min behind'],
    [{ trouble: ['store: the disk is full'] }, 'orders: master of term 3: store: the disk is full'],
    [{ role: 'standby', reason: 'resume: same bytes' }, 'orders: standby, ready'],
    [{ role: 'standby', ready: false, reason: 'gap: purged' }, 'orders: standby, not ready: gap: purged'],
    [{ role: 'starting', ready: false, reason: 'archive: no answer' }, 'orders: starting: archive: no answer'],
    [{ role: 'leaving', ready: false, reason: 'leaving' }, 'orders: leaving'],
  ])('of %j is %j', (standing, text) => expect(statusText([{ ...master, ...standing }], null)).toBe(text));

  test('tells first that a config was refused, and never a password', () => {
    expect(statusText([master, { ...master, name: 'audit' }], 'c.yaml, line 3: mysql://me:secret@h')).toBe(
      'the config was refused, the old one is in force: c.yaml, line 3: mysql://me:***@h; ' +
        'orders: master of term 3; audit: master of term 3',
    );
  });
});

/** A service over a daemon that is what the test makes it, on a clock that the test moves. */
function attended(watchdogMs: number | null) {
  const told: Notification[] = [];
  const errors: string[] = [];
  const daemon = { streams: [master], isTried: true, stuck: [] as string[] };
  const clock = { nowMs: 0 };
  const service = new Service({
    daemon: { standing: () => daemon.streams, isTried: () => daemon.isTried, stuck: () => daemon.stuck },
    notifier: {
      watchdogMs,
      tell: async (notification) => {
        told.push(notification);
      },
    },
    log: { debug() {}, info() {}, warn() {}, error: (message) => void errors.push(message) },
    nowMs: () => clock.nowMs,
  });
  const ending = new AbortController();
  const attending = service.attend(ending.signal).catch(() => {});
  const end = async () => {
    ending.abort();
    await attending;
  };
  return { told, errors, daemon, clock, service, end };
}

const signsOfLife = (told: readonly Notification[]) => told.filter(({ WATCHDOG }) => WATCHDOG === '1').length;

describe('systemd is told', () => {
  test('READY once every stream was tried, and STATUS when it changes', async () => {
    const { told, daemon, end } = attended(60);
    daemon.isTried = false;
    daemon.isTried = true;
    await until('it is ready', () => told.length > 0);
    expect(told[0]).toEqual({ READY: '1', STATUS: 'orders: master of term 3', WATCHDOG: '1' });
    daemon.streams = [{ ...master, term: 4 }];
    await until('the new status', () => told.some(({ STATUS }) => STATUS === 'orders: master of term 4'));
    expect(told.filter(({ STATUS }) => STATUS !== undefined)).toHaveLength(2);
    await end();
  });

  test('READY at last, though a stream still knows neither its role nor why not', async () => {
    const { told, daemon, clock, end } = attended(60);
    daemon.isTried = false;
    clock.nowMs = 60_000;
    await until('it is ready', () => told.some(({ READY }) => READY === '1'));
    await end();
  });

  test('that the daemon lives, three times within what it waits for, and no more once a stream is stuck', async () => {
    const { told, errors, daemon, clock, end } = attended(60);
    await until('it is ready', () => signsOfLife(told) === 1);
    clock.nowMs += 20;
    await until('the next sign of life', () => signsOfLife(told) === 2);
    daemon.stuck = ['orders'];
    clock.nowMs += 20;
    await until('the operator is told', () => errors.length > 0);
    expect(errors).toEqual(['stuck, for minutes and for no reason that is known: orders']);
    expect(signsOfLife(told)).toBe(2);
    daemon.stuck = [];
    await until('it lives again', () => signsOfLife(told) === 3);
    await end();
  });

  test('that the config is read anew, and from when on; then that the daemon is ready, and what was refused', async () => {
    const { told, service, end } = attended(null);
    await until('it is ready', () => told.length > 0);
    const before = process.hrtime.bigint() / 1_000n;
    await service.reloading();
    await service.reloaded('no such file');
    const [reloading, reloaded] = told.slice(-2);
    expect(reloading?.RELOADING).toBe('1');
    expect(BigInt(reloading?.MONOTONIC_USEC ?? '0')).toBeGreaterThanOrEqual(before);
    expect(reloaded).toMatchObject({ READY: '1', STATUS: expect.stringContaining('refused') });
    await service.stopping();
    expect(told.at(-1)).toEqual({ STOPPING: '1', STATUS: 'leaving' });
    await end();
  });
});
