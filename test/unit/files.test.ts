import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  linkSync,
  renameSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { afterEach, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Discontinuity } from '../../src/errors.ts';
import type { LogSlice, LogSource } from '../../src/source/source.ts';
import { endOf, Shipping } from '../contract/source-shipping.ts';
import { LogFiles } from '../helpers/log-files.ts';
import { asNobody } from '../helpers/nobody.ts';
import { until } from '../helpers/wait.ts';

const MAX_SLICE_BYTES = 64;
const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (const each of undo.splice(0).reverse()) await each();
});

/** A directory with a file that holds a line, a source on it, and what that ships. */
function begin({ live }: { live?: string } = {}) {
  const files = new LogFiles(live === undefined ? {} : { live });
  files.rotate();
  const stop = new AbortController();
  undo.push(() => files.remove());
  const shipping = new Shipping();
  const open = (options: Parameters<LogFiles['open']>[0] = {}) => {
    const source = files.open({ settleMs: 0, ...options });
    undo.push(() => source.close());
    return source;
  };
  undo.push(() => stop.abort());
  /** Ships until the source ends with an error, which is returned. */
  const follow = (by: LogSource) => endOf(by.read(shipping.position, stop.signal), (slice) => shipping.add(slice));
  /** The same, once all that is written was shipped. */
  const following = async (by: LogSource) => {
    const ending = follow(by);
    await until('all is shipped', () => shippedText(shipping).join('') === files.written.join(''));
    return { ending };
  };
  return { files, shipping, open, follow, following };
}

const shippedText = (shipping: Shipping) => [...shipping.contents().values()].map(String);

/** Ships until so many bytes are shipped in all. */
async function shipUpTo(bytes: number, { shipping, by }: { shipping: Shipping; by: LogSource }): Promise<void> {
  const shipped = () => shipping.chunks.reduce((sum, { length }) => sum + length, 0);
  if (shipped() >= bytes) return;
  const stop = new AbortController();
  for await (const slice of by.read(shipping.position, stop.signal)) {
    shipping.add(slice as LogSlice);
    await by.acknowledge(slice.to);
    if (shipped() >= bytes) break;
  }
}

describe('over any history of appending, rotating, purging and restarting', () => {
  const step = fc.oneof(
    { weight: 4, arbitrary: fc.record({ kind: fc.constant('line' as const), bytes: fc.nat(3 * MAX_SLICE_BYTES) }) },
    {
      weight: 2,
      arbitrary: fc.record({ kind: fc.constant('part' as const), bytes: fc.integer({ min: 1, max: 100 }) }),
    },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('rotate' as const) }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('ship' as const) }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('restart' as const) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('purge' as const) }) },
  );

  /** A file system gives a new file the inode of one that was removed, and rotation its name. */
  const REUSED_INODE = ['rotate', 'ship', 'purge', 'rotate', 'rotate'] as const;

  test.each([[undefined], ['audit.log']])(
    'no byte is lost, none comes twice, and all are in order (live: %s)',
    (live) =>
      fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 20 }), async (steps) => {
          const { files, shipping, open } = begin(live === undefined ? {} : { live });
          let source = open({ maxSliceBytes: MAX_SLICE_BYTES });
          const whole = () => files.written.map((text, i) => (i < files.written.length - 1 ? text : wholeLines(text)));
          const ship = () => shipUpTo(whole().join('').length, { shipping, by: source });
          for (const each of steps) {
            if (each.kind === 'line') files.append({ bytes: each.bytes });
            else if (each.kind === 'part') files.write('p'.repeat(each.bytes));
            else if (each.kind === 'rotate') files.rotate();
            else if (each.kind === 'ship') await ship();
            else if (each.kind === 'purge') {
              await source.backlog(shipping.position);
              files.purge();
              await ship();
            } else {
              source = open({ maxSliceBytes: MAX_SLICE_BYTES });
              const located = await source.locate(shipping.head());
              expect(located).toMatchObject({ result: shipping.position ? 'resume' : 'start', allowed: true });
              shipping.open(located);
            }
          }
          await ship();
          expect(shippedText(shipping)).toEqual(whole().filter((text) => text !== ''));
          const names = [...shipping.contents().keys()];
          expect(new Set(names).size).toBe(names.length);
          for (const each of undo.splice(0).reverse()) await each();
        }),
        { numRuns: 60, examples: [[REUSED_INODE.map((kind) => ({ kind }))]] },
      ),
  );
});

const wholeLines = (text: string) => text.slice(0, text.lastIndexOf('\n') + 1);

test('what a writer still adds to the old file after the new one is there is shipped before the new one', async () => {
  const { files, shipping, open, follow } = begin();
  void follow(open({ settleMs: 60_000 }));
  await until('the first line is shipped', () => shipping.position);
  const old = files.path(files.newest);
  files.rotate();
  files.append();
  appendFileSync(old, 'the last line, without an end');
  files.written[0] += 'the last line, without an end';
  const laterSeconds = Date.now() / 1000 + 120;
  utimesSync(files.path(files.newest), laterSeconds, laterSeconds);
  await until('both files are shipped', () => shippedText(shipping).join('') === files.written.join(''));
  expect(shippedText(shipping)).toEqual(files.written);
});

test('an empty directory is a log that begins with its first byte', async () => {
  const files = new LogFiles();
  const source = files.open({ settleMs: 0 });
  undo.push(
    () => files.remove(),
    () => source.close(),
  );
  expect(await source.locate(null)).toMatchObject({ result: 'start', at: null, allowed: true });
  expect(await source.end()).toBeNull();
  const shipping = new Shipping();
  const stop = new AbortController();
  undo.push(() => stop.abort());
  void endOf(source.read(null, stop.signal), (slice) => shipping.add(slice));
  files.rotate();
  await until('its first line is shipped', () => shippedText(shipping)[0] === files.written[0]);
});

test('an empty new file does not end the old one', async () => {
  const { files, shipping, open, follow } = begin();
  void follow(open());
  await until('the first line is shipped', () => shipping.position);
  writeFileSync(files.path('audit-2.log'), '');
  for (const line of ['more\n', 'and more\n']) {
    files.write(line);
    await until('it is shipped', () => shippedText(shipping)[0] === files.written[0]);
  }
});

describe('bytes that nobody can ship in order stop the stream with an error that names them', () => {
  test('a file grows after it had ended; once it is moved away shipping goes on', async () => {
    const { files, shipping, open, follow } = begin();
    files.rotate();
    const source = open();
    await shipping.ship(source);
    const old = files.path('audit-1.log');
    appendFileSync(old, 'late\n');
    files.append();
    for (let attempt = 0; attempt < 2; attempt++) {
      expect(await follow(source)).toMatchObject({
        code: 'SOURCE_LATE_BYTES',
        message: expect.stringContaining(`${old} grew by 5 bytes`),
        hint: expect.stringContaining(`what follows byte ${files.written[0]!.length} of ${old}`),
      });
    }
    renameSync(old, `${old}.gz`);
    await shipping.ship(source);
    expect(shippedText(shipping)).toEqual(files.written);
  });

  test('a file appears before one that is being shipped', async () => {
    const { files, open, following } = begin();
    const source = open();
    const { ending } = await following(source);
    writeFileSync(files.path('audit-0.log'), 'late\n');
    expect(await ending).toMatchObject({ code: 'SOURCE_LATE_BYTES', message: expect.stringContaining('audit-0.log') });
  });

  test('a file is renamed, though the config knows of no rotation by renaming', async () => {
    const { files, open, following } = begin();
    const source = open();
    const { ending } = await following(source);
    renameSync(files.path('audit-1.log'), files.path('audit-1.log.1'));
    expect(await ending).toMatchObject({ code: 'SOURCE_RENAMED', hint: expect.stringContaining('live: audit-1.log') });
  });
});

describe('rotation that gives names which sort badly', () => {
  const rotateTo = (files: LogFiles, name: string) => {
    renameSync(files.path('audit.log'), files.path(name));
    writeFileSync(files.path('audit.log'), `after ${name}\n`);
    files.written.push(`after ${name}\n`);
  };

  test('stops the stream before a file is shipped twice; once the names are right shipping goes on', async () => {
    const { files, shipping, open, following } = begin({ live: 'audit.log' });
    const source = open();
    const { ending } = await following(source);
    rotateTo(files, 'audit.log-30112026');
    await until('it is shipped', () => shippedText(shipping).length === 2);
    rotateTo(files, 'audit.log-01122026');
    expect(await ending).toMatchObject({
      code: 'SOURCE_MISORDERED',
      message: expect.stringMatching(/audit.log-30112026 comes after .*audit.log-01122026 by its name/),
      hint: expect.stringContaining('dateformat -%Y%m%d'),
    });
    expect(shippedText(shipping)).toEqual(files.written.slice(0, 2));
    renameSync(files.path('audit.log-30112026'), files.path('audit.log-20261130'));
    renameSync(files.path('audit.log-01122026'), files.path('audit.log-20261201'));
    await shipping.ship(source);
    expect(shippedText(shipping)).toEqual(files.written);
  });

  test('is found by the times of the files too, by a daemon that did not see them shipped, and by check', async () => {
    const { files, shipping, open, follow } = begin({ live: 'audit.log' });
    await shipping.ship(open());
    const hourSeconds = 3_600;
    const atHours = (name: string, hours: number) => {
      const seconds = Date.now() / 1_000 + hours * hourSeconds;
      utimesSync(files.path(name), seconds, seconds);
    };
    rotateTo(files, 'audit.log-30112026');
    atHours('audit.log-30112026', -24);
    await shipping.ship(open());
    rotateTo(files, 'audit.log-01122026');
    const source = open();
    expect(await source.inspect()).toContainEqual(
      expect.objectContaining({ level: 'error', message: expect.stringContaining('audit.log-30112026 comes after') }),
    );
    expect(await follow(source)).toMatchObject({ code: 'SOURCE_MISORDERED' });
    expect(shippedText(shipping)).toEqual(files.written.slice(0, 2));
  });
});

test('a file that rotation links to its next name comes once, whenever the live name leads elsewhere', async () => {
  const { files, shipping, open } = begin({ live: 'audit.log' });
  const source = open();
  await shipping.ship(source);
  linkSync(files.path('audit.log'), files.path('audit.log.1'));
  files.append();
  await shipping.ship(source);
  writeFileSync(files.path('.new'), 'anew\n');
  renameSync(files.path('.new'), files.path('audit.log'));
  files.written.push('anew\n');
  await shipping.ship(source);
  expect(shippedText(shipping)).toEqual(files.written);
});

test('a name that is not UTF-8 is said to be that', async () => {
  const { files, open } = begin();
  writeFileSync(Buffer.concat([Buffer.from(files.path('audit-')), Buffer.from([0xe9])]), 'x');
  await expect(open().locate(null)).rejects.toMatchObject({
    code: 'SOURCE_UNREADABLE',
    message: expect.stringContaining('is not UTF-8'),
    hint: expect.stringContaining('match'),
  });
});

test('a file that could not be opened when it appeared is held from then on', async () => {
  const { files, shipping, open } = begin();
  chmodSync(files.dir, 0o755);
  const source = open();
  await shipping.ship(source);
  files.rotate();
  chmodSync(files.path(files.newest), 0o000);
  await asNobody(() => expect(source.backlog(shipping.position)).rejects.toMatchObject({ code: 'SOURCE_UNREADABLE' }));
  chmodSync(files.path(files.newest), 0o644);
  files.rotate();
  await source.backlog(shipping.position);
  files.purge();
  await shipping.ship(source);
  expect(shippedText(shipping)).toEqual(files.written);
});

describe('copytruncate and overwriting are found, and never gone over in silence', () => {
  const copyAndTruncate = (files: LogFiles) => {
    copyFileSync(files.path('audit.log'), files.path('audit.log.1'));
    truncateSync(files.path('audit.log'));
  };

  test('shortened while it is followed: what to change is said, and an operator decides', async () => {
    const { files, shipping, open, following } = begin({ live: 'audit.log' });
    const source = open();
    const { ending } = await following(source);
    truncateSync(files.path('audit.log'));
    const error = await ending;
    expect(error).toBeInstanceOf(Discontinuity);
    expect(error).toMatchObject({
      message: expect.stringContaining('shortened in place'),
      hint: expect.stringContaining('copytruncate'),
    });
    appendFileSync(files.path('audit.log'), 'after\n');
    const located = await source.locate(shipping.head());
    expect(located).toMatchObject({ result: 'gap', allowed: false, at: { segment: 'audit.log-000002', offset: 0 } });
    expect(located.reason).toContain('copytruncate');
    shipping.open(located);
    await shipping.ship(source);
    expect(shippedText(shipping)).toEqual([files.written[0], 'after\n']);
  });

  test('shortened, and the copy is met later: all that is there is shipped once it is accepted', async () => {
    const { files, shipping, open, following } = begin({ live: 'audit.log' });
    const source = open();
    const { ending } = await following(source);
    files.write('not yet whole');
    truncateSync(files.path('audit.log'));
    expect(await ending).toBeInstanceOf(Discontinuity);
    writeFileSync(files.path('audit.log.1'), files.written[0]!);
    appendFileSync(files.path('audit.log'), 'after\n');
    const located = await source.locate(shipping.head());
    expect(located).toMatchObject({ result: 'gap', allowed: false, reason: expect.stringContaining('copytruncate') });
    shipping.open(located);
    await shipping.ship(source);
    expect(shippedText(shipping)).toEqual(['line 0 \n', files.written[0], 'after\n']);
  });

  test('copied and shortened while it is followed: all that is there is shipped once it is accepted', async () => {
    const { files, shipping, open, follow, following } = begin({ live: 'audit.log' });
    const source = open();
    const { ending } = await following(source);
    files.write('not yet whole');
    copyAndTruncate(files);
    expect(await ending).toMatchObject({ code: expect.stringMatching('DISCONTINUITY|SOURCE_LATE_BYTES') });
    expect(await follow(source)).toBeInstanceOf(Discontinuity);
    appendFileSync(files.path('audit.log'), 'after\n');
    const located = await source.locate(shipping.head());
    expect(located).toMatchObject({ result: 'gap', allowed: false, reason: expect.stringContaining('copytruncate') });
    shipping.open(located);
    await shipping.ship(source);
    expect(shippedText(shipping)).toEqual(['line 0 \n', files.written[0], 'after\n']);
  });

  test('shortened while no daemon ran', async () => {
    const { files, shipping, open } = begin();
    files.append({ bytes: 500 });
    await shipping.ship(open());
    writeFileSync(files.path('audit-1.log'), 'line 0 \nother');
    const located = await open().locate(shipping.head());
    expect(located).toMatchObject({ result: 'gap', allowed: false, at: { segment: 'audit-1.log', offset: 0 } });
    expect(located.reason).toContain('copytruncate');
  });

  test('emptied while no daemon ran, and not written since', async () => {
    const { files, shipping, open } = begin();
    await shipping.ship(open());
    truncateSync(files.path('audit-1.log'));
    const after = open();
    const located = await after.locate(shipping.head());
    expect(located).toMatchObject({ result: 'gap', allowed: false, reason: expect.stringContaining('shortened') });
    shipping.open(located);
    appendFileSync(files.path('audit-1.log'), 'anew\n');
    await shipping.ship(after);
    expect(shippedText(shipping)).toEqual(['anew\n']);
  });

  test('overwritten with as many bytes and more, while it is followed and while no daemon ran', async () => {
    const { files, shipping, open, following } = begin();
    files.append({ bytes: 5000 });
    files.append({ bytes: 500 });
    const source = open();
    const { ending } = await following(source);
    const text = files.written[0]!;
    writeFileSync(files.path('audit-1.log'), `${text.slice(0, -100)}${'y'.repeat(99)}\nmore\n`);
    expect(await ending).toBeInstanceOf(Discontinuity);
    for (const by of [source, open()]) {
      expect(await by.locate(shipping.head())).toMatchObject({ result: 'gap', allowed: false });
    }
  });
});

describe('two hosts', () => {
  test('without a shared directory a daemon of another host never takes over; the same one goes on', async () => {
    const { shipping, open } = begin();
    await shipping.ship(open({ shared: false, node: 'db-1' }));
    const other = await open({ shared: false, node: 'db-2' }).locate(shipping.head());
    expect(other).toMatchObject({ result: 'behind', allowed: false, reason: expect.stringContaining('shared: true') });
    const same = await open({ shared: false, node: 'db-1' }).locate(shipping.head());
    expect(same).toMatchObject({ result: 'resume', allowed: true });
  });

  test('on a shared directory a twin finds files that begin alike by what was shipped last', async () => {
    const { files, shipping, open } = begin({ live: 'audit.log' });
    const alike = 'the same first line in every file\n'.repeat(40);
    files.rotate();
    files.write(alike);
    for (const last of ['one\n', 'two\n', 'three\n']) {
      rmSync(files.path('audit.log.1'));
      renameSync(files.path('audit.log'), files.path('audit.log.1'));
      writeFileSync(files.path('audit.log'), alike);
      appendFileSync(files.path('audit.log'), last);
      await open().locate(null);
    }
    const source = open();
    await shipping.ship(source);
    const twin = open();
    expect(await twin.locate(shipping.head())).toMatchObject({ result: 'resume', at: shipping.position });
    appendFileSync(files.path('audit.log'), 'four\n');
    shipping.open(await twin.locate(shipping.head()));
    await shipping.ship(twin);
    expect(shippedText(shipping)).toEqual([`${alike}two\n`, `${alike}three\nfour\n`]);
  });
});

test('rotated files come in the order of their ages, dated ones in that of their dates, compressed ones not at all', async () => {
  for (const names of [
    ['audit.log.10', 'audit.log.9', 'audit.log.1', 'audit.log'],
    ['audit.log-20261121', 'audit.log-20261122', 'audit.log-20261122-1764000000', 'audit.log'],
    ['audit.log-2026.11.30', 'audit.log-2026.12.01', 'audit.log.1', 'audit.log'],
  ]) {
    const files = new LogFiles({ live: 'audit.log' });
    undo.push(() => files.remove());
    for (const name of names) writeFileSync(files.path(name), `${name}\n`);
    writeFileSync(files.path('audit.log.11.gz'), 'x');
    const source = files.open({ settleMs: 0 });
    undo.push(() => source.close());
    const shipping = new Shipping();
    await shipping.ship(source);
    expect([...shipping.contents()].map(([name, bytes]) => [name, String(bytes)])).toEqual(
      names.map((name, i) => [`audit.log-00000${i + 1}`, `${name}\n`]),
    );
  }
});
