import { afterEach, beforeEach } from '@jest/globals';
import { type MariadbSource, type MariadbSourceOptions, openMariadbSource } from '../../src/source/mariadb.ts';
import type { LogSlice } from '../../src/source/source.ts';
import { endOf, Shipping } from '../contract/source-shipping.ts';
import { BinlogDir } from './binlog.ts';

/** A directory of binlogs, sources on it, and what they ship: fresh for each test of the file that calls it. */
export interface BinlogBench {
  readonly binlogs: BinlogDir;
  readonly source: MariadbSource;
  readonly shipping: Shipping;
  readonly stop: AbortController;
  /** Warnings that sources logged. */
  readonly warnings: readonly string[];
  /** Another source, as another daemon would have it. */
  open(options?: Partial<MariadbSourceOptions>): MariadbSource;
  /** Another log instead; `start` writes its first file. */
  use(other: BinlogDir, options?: { start?: boolean }): void;
  /** Ships what comes until the source ends with an error, which is returned, or until `enough`. */
  follow(options?: { by?: MariadbSource; enough?: () => boolean }): Promise<unknown>;
}

export function benchOfBinlogs(): BinlogBench {
  const opened: MariadbSource[] = [];
  const warnings: string[] = [];
  const log = { debug() {}, info() {}, warn: (message: string) => void warnings.push(message), error() {} };
  const fresh = () => {
    const binlogs = new BinlogDir();
    binlogs.start();
    return { binlogs, shipping: new Shipping(), stop: new AbortController() };
  };
  let now = { ...fresh(), source: null as MariadbSource | null };
  now.binlogs.remove();

  const bench: BinlogBench = {
    get binlogs() {
      return now.binlogs;
    },
    get source() {
      now.source ??= bench.open();
      return now.source;
    },
    get shipping() {
      return now.shipping;
    },
    get stop() {
      return now.stop;
    },
    warnings,
    open(options = {}) {
      const { dir, flavour } = now.binlogs;
      const source = openMariadbSource({ stream: 'orders', dir, flavour, busyPollMs: 5, log, ...options });
      opened.push(source);
      return source;
    },
    use(other, { start = true } = {}) {
      now.binlogs.remove();
      now = { ...now, binlogs: other, source: null };
      if (start) other.start();
    },
    follow({ by = bench.source, enough = () => false } = {}) {
      const seen = (slice: LogSlice) => {
        now.shipping.add(slice);
        if (enough()) now.stop.abort(new Error('enough'));
      };
      return endOf(by.read(now.shipping.position, now.stop.signal), seen);
    },
  };

  beforeEach(() => {
    now = { ...fresh(), source: null };
    warnings.length = 0;
  });
  afterEach(async () => {
    now.stop.abort();
    for (const each of opened.splice(0)) await each.close();
    now.binlogs.remove();
  });
  return bench;
}
