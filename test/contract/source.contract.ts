import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { samePlace } from '../../src/core/position.ts';
import { witnessDigest } from '../../src/core/witness.ts';
import { Discontinuity } from '../../src/errors.ts';
import type { LogSlice, LogSource } from '../../src/source/source.ts';
import { headWith } from '../helpers/head.ts';
import { endOf, Shipping } from './source-shipping.ts';

const MAX_SLICE_BYTES = 1 << 20;

/** Compares files by length and digest: a diff of megabytes helps nobody. */
function expectSame(shipped: Map<string, Buffer>, expected: Map<string, Buffer>): void {
  const inShort = (files: Map<string, Buffer>) =>
    [...files].map(([name, bytes]) => ({ name, length: bytes.length, digest: witnessDigest(bytes) }));
  expect(inShort(shipped)).toEqual(inShort(expected));
}

/** A database's log that the suite can write to. */
export interface SourceHarness {
  /** Another twin's source on the same log. */
  open(): LogSource;
  /** Commits one transaction that takes at least `bytes` bytes of log. */
  append(options?: { bytes?: number }): Promise<void>;
  /** Ends the newest segment, starts the next. */
  rotate(): Promise<void>;
  /** Drops every segment but the newest; `byForce`: also those that the database keeps for whoever archives it. */
  purge(options?: { byForce?: boolean }): Promise<void>;
  /** Starts the log again on purpose, under the same names. */
  reset?(): Promise<void>;
  /** Remembers the log as it is now. */
  remember?(): Promise<void>;
  /** Puts it back to what was remembered, as a power loss does, and goes on with other bytes. */
  rollBack?(): Promise<void>;
  /** Every segment's bytes by name, as they are to be shipped. */
  contents(): Promise<Map<string, Buffer>>;
  close(): Promise<void>;
}

/**
 * What cannot happen to some logs: `reset`: they never start again under the same names; `rollBack`: what may be read
 * outlives a power loss; `openTransaction`: they may be cut anywhere; `finishedPurge`: nothing tells that a removed
 * segment had no more than what was shipped of it.
 */
export type Impossible = 'reset' | 'rollBack' | 'openTransaction' | 'finishedPurge';

/**
 * What every source must do, whatever the database. `start` gives a log that holds a transaction or more; `never`: what
 * can't happen to it.
 */
export function sourceContract(
  name: string,
  start: () => Promise<SourceHarness>,
  { never = [] }: { never?: readonly Impossible[] } = {},
): void {
  const testIfPossible =
    (what: Impossible) =>
    (does: string, run: () => Promise<void>): void => {
      if (!never.includes(what)) test(does, run);
    };

  describe(`${name} as a log source`, () => {
    let harness: SourceHarness;
    let source: LogSource;
    let shipping: Shipping;
    const opened: LogSource[] = [];
    const stop = { controller: new AbortController() };

    const open = () => {
      const another = harness.open();
      opened.push(another);
      return another;
    };

    beforeEach(async () => {
      harness = await start();
      source = open();
      shipping = new Shipping();
      stop.controller = new AbortController();
    });

    afterEach(async () => {
      stop.controller.abort();
      for (const each of opened.splice(0)) await each.close();
      await harness.close();
    });

    const locate = async (by = source) => {
      const located = await by.locate(shipping.head());
      expect(located.reason).not.toBe('');
      return located;
    };

    test('ships every byte of every segment in order', async () => {
      await harness.append({ bytes: 5000 });
      await harness.rotate();
      for (let i = 0; i < 5; i++) await harness.append();
      await harness.rotate();
      const slices = await shipping.ship(source);
      expectSame(shipping.contents(), await harness.contents());
      expect(slices.every(({ boundary }) => boundary)).toBe(true);
      const ended = slices.filter(({ endsSegment }) => endsSegment).map(({ to }) => to.segment);
      expect(ended).toEqual([...(await harness.contents()).keys()].slice(0, -1));
    });

    test('starts a new archive at the oldest byte', async () => {
      await harness.rotate();
      const [oldest] = (await harness.contents()).keys();
      const located = await source.locate(null);
      expect(located).toMatchObject({ result: 'start', allowed: true, at: { segment: oldest, offset: 0 } });
      expect(await source.locate(headWith({ position: null }))).toEqual(located);
    });

    test('goes on from wherever a slice ended', async () => {
      await harness.append({ bytes: 3 * MAX_SLICE_BYTES });
      await harness.rotate();
      await harness.append();
      const slices = await shipping.ship(source);
      expect(slices.every(({ from, to }) => to.offset - from.offset <= MAX_SLICE_BYTES)).toBe(true);
      for (const { to } of slices.slice(0, -1)) {
        const rest = new Shipping();
        rest.open({ result: 'resume', at: to, allowed: true, reason: '', evidence: {} });
        await rest.ship(open());
        const before = shipping.chunks.findIndex((chunk) => samePlace(chunk.to, to));
        expect(rest.chunks.map(({ mark }) => mark).at(-1)).toBe(shipping.chunks.at(-1)!.mark);
        const length = (chunks: readonly { length: number }[]) => chunks.reduce((sum, chunk) => sum + chunk.length, 0);
        expect(length(rest.chunks)).toBe(length(shipping.chunks.slice(before + 1)));
        expect(rest.position).toEqual(shipping.position);
      }
    });

    testIfPossible('openTransaction')('breaks a transaction over slices only where it is larger than one', async () => {
      await harness.append();
      await shipping.ship(source);
      await harness.append({ bytes: 3 * MAX_SLICE_BYTES });
      await harness.append();
      const slices = await shipping.ship(source);
      expect(slices.every(({ from, to }) => to.offset - from.offset <= MAX_SLICE_BYTES)).toBe(true);
      expect(slices.filter(({ boundary }) => !boundary).length).toBeGreaterThanOrEqual(2);
      expect(slices.at(-1)!.boundary).toBe(true);
      const open = slices.filter(({ boundary }) => !boundary);
      expect(new Set(open.map(({ to }) => to.id))).toEqual(new Set([slices[0]!.from.id]));
      expectSame(shipping.contents(), await harness.contents());
    });

    test('waits at the end for more, and ends with the reason of its signal', async () => {
      await shipping.ship(source);
      const reason = new Error('the term is over');
      const ending = endOf(source.read(shipping.position, stop.controller.signal), (slice) => {
        shipping.add(slice);
        stop.controller.abort(reason);
      });
      await harness.append();
      expect(await ending).toBe(reason);
      expectSame(shipping.contents(), await harness.contents());
      expect(await endOf(source.read(shipping.position, stop.controller.signal))).toBe(reason);
    });

    test('tells how far a position is behind', async () => {
      await shipping.ship(source);
      const at = shipping.position;
      expect(await source.backlog(at)).toEqual({ bytes: 0, oldestMs: null });
      await harness.append({ bytes: 1000 });
      await harness.rotate();
      await harness.append({ bytes: 1000 });
      const { bytes, oldestMs } = await source.backlog(at);
      const slices = await shipping.ship(source);
      expect(bytes).toBe(slices.reduce((sum, { from, to }) => sum + to.offset - from.offset, 0));
      expect(oldestMs).toEqual(slices[0]!.firstEventMs ?? expect.any(Number));
      expect(await source.end()).toEqual(shipping.position);
    });

    test('resume: another twin finds the same bytes and goes on', async () => {
      await shipping.ship(source);
      await harness.append();
      const twin = open();
      expect(await locate(twin)).toMatchObject({ result: 'resume', allowed: true, at: shipping.position });
      await harness.rotate();
      await shipping.ship(source);
      await harness.append();
      shipping.open(await locate(twin));
      await shipping.ship(twin);
      expectSame(shipping.contents(), await harness.contents());
    });

    test('resume: at the end of a segment that was ended since', async () => {
      await shipping.ship(source);
      await harness.rotate();
      await shipping.ship(source);
      await harness.rotate();
      await harness.append();
      shipping.open(await locate(open()));
      await shipping.ship(source);
      expectSame(shipping.contents(), await harness.contents());
    });

    test('a purge does not take bytes from a reader that is behind', async () => {
      for (let i = 0; i < 3; i++) {
        await harness.append({ bytes: 2000 });
        await harness.rotate();
      }
      const expected = await harness.contents();
      const slices = source.read(null, stop.controller.signal)[Symbol.asyncIterator]();
      shipping.add((await slices.next()).value as LogSlice);
      await harness.purge();
      while (shipping.position!.segment !== [...expected.keys()].at(-1)) {
        shipping.add((await slices.next()).value as LogSlice);
      }
      await slices.return?.();
      const [newest] = [...expected.keys()].slice(-1);
      const without = (files: Map<string, Buffer>) => new Map([...files].filter(([name]) => name !== newest));
      expectSame(without(shipping.contents()), without(expected));
    });

    test('gap: the bytes after the head were purged', async () => {
      await shipping.ship(source);
      await harness.append();
      await harness.rotate();
      await harness.append();
      await harness.rotate();
      await harness.purge({ byForce: true });
      const [oldest] = (await harness.contents()).keys();
      expect(await locate(open())).toMatchObject({ result: 'gap', allowed: false, at: { segment: oldest, offset: 0 } });
      expect(await endOf(open().read(shipping.position, stop.controller.signal))).toBeInstanceOf(Discontinuity);
    });

    testIfPossible('finishedPurge')('resume: a purge took no more than what was shipped', async () => {
      await harness.rotate();
      const slices = await shipping.ship(source);
      const lastOfFirst = slices.findLast(({ endsSegment }) => endsSegment)!;
      await harness.append();
      await harness.purge();
      const [newest] = (await harness.contents()).keys();
      const chunks = shipping.chunks.filter(({ to }) => to.segment !== newest).toReversed();
      const head = headWith({ position: lastOfFirst.to, chunks });
      const located = await open().locate(head);
      expect(located).toMatchObject({ result: 'resume', allowed: true, at: { segment: newest, offset: 0 } });
    });

    testIfPossible('rollBack')('truncate: a power loss took bytes back and the log went on differently', async () => {
      await shipping.ship(source);
      await harness.remember!();
      const common = shipping.position;
      await harness.append({ bytes: 400 });
      await shipping.ship(source);
      await harness.append({ bytes: 800 });
      await shipping.ship(source);
      await harness.rollBack!();
      const located = await locate(open());
      expect(located).toMatchObject({ result: 'truncate', allowed: true, at: common });
      shipping.open(located);
      await shipping.ship(open());
      expectSame(shipping.contents(), await harness.contents());
    });

    testIfPossible('rollBack')('truncate: the head is in a segment that the log put back never had', async () => {
      await shipping.ship(source);
      await harness.remember!();
      const common = shipping.position;
      for (let i = 0; i < 3; i++) {
        await harness.append();
        await harness.rotate();
        await shipping.ship(source);
      }
      await harness.rollBack!();
      const located = await locate(open());
      expect(located).toMatchObject({ result: 'truncate', allowed: true, at: common });
      shipping.open(located);
      expect(await locate(open())).toMatchObject({ result: 'resume', at: common });
      await shipping.ship(open());
      expectSame(shipping.contents(), await harness.contents());
    });

    testIfPossible('rollBack')('a reader notices that the log was put back', async () => {
      await harness.remember!();
      await harness.append({ bytes: 4000 });
      await shipping.ship(source);
      const ending = endOf(source.read(shipping.position, stop.controller.signal));
      await harness.rollBack!();
      expect(await ending).toBeInstanceOf(Discontinuity);
    });

    testIfPossible('reset')('reset: the old log is drained, then the new one is shipped from its start', async () => {
      await shipping.ship(source);
      await harness.append({ bytes: 3000 });
      const slices = source.read(shipping.position, stop.controller.signal);
      const before = await harness.contents();
      let ending: Promise<unknown> | undefined;
      for await (const slice of slices) {
        shipping.add(slice);
        await harness.reset!();
        ending = endOf(source.read(shipping.position, stop.controller.signal));
        break;
      }
      expectSame(shipping.contents(), before);
      expect(await ending).toBeInstanceOf(Discontinuity);
      const located = await locate(open());
      const [first] = (await harness.contents()).keys();
      expect(located).toMatchObject({ result: 'reset', allowed: true, at: { segment: first, offset: 0 } });
      shipping.open(located);
      await harness.append();
      await shipping.ship(open());
      const only = (files: Map<string, Buffer>) => new Map([[first!, files.get(first!)!]]);
      expectSame(only(shipping.contents()), only(await harness.contents()));
    });
  });
}
