import { describe, expect, test } from '@jest/globals';
import { attentionTo } from '../../src/cli/status-attention.ts';
import { statusText } from '../../src/cli/status-text.ts';
import type { Overview, TwinStream } from '../../src/coordination/coordination.ts';
import { bytesText, secondsText } from '../../src/core/format.ts';
import { type StreamStatus, statusReport, type TwinStatus } from '../../src/core/status.ts';

const twinStream = (given: Partial<TwinStream>): TwinStream => ({
  name: 'orders',
  role: 'standby',
  ready: true,
  reason: 'resume: the last chunk is here',
  lagBytes: 0,
  lagSeconds: null,
  config: 'c',
  ...given,
});

const twin = (node: string, ...streams: TwinStream[]) => ({
  node,
  version: '1',
  format: 1,
  time: '2026-11-22T13:00:01Z',
  streams,
});

const cursor = {
  archive: 'a1',
  stream: 'orders',
  term: 3,
  slot: 217,
  digest: 'd1',
  position: { origin: 'mariadb-1', incarnation: 'i', segment: 'binlog.000003', offset: 4711, id: '0-1-52,1-1-7' },
  time: '2026-11-22T13:00:00Z',
};

const overview: Overview = {
  streams: [
    { name: 'orders', master: 'db-1', cursor },
    { name: 'old', master: null, cursor: { ...cursor, stream: 'old', position: null } },
  ],
  twins: [
    twin(
      'db-2',
      twinStream({
        ready: false,
        reason: 'gap: binlog.000002 was purged before it was shipped, and it is needed',
        lagBytes: 3_500_000,
        lagSeconds: 12.2,
      }),
    ),
    twin('db-1', twinStream({ role: 'master', reason: 'writes term 3', lagBytes: 0, lagSeconds: 0 })),
  ],
};

const expected = { cluster: 'acme', stores: { orders: ['main'], billing: ['main'] } };

describe('the report', () => {
  test('has exactly the fields that scripts rely on', () => {
    expect(statusReport(overview, expected).streams.find(({ name }) => name === 'orders')).toEqual({
      name: 'orders',
      master: 'db-1',
      term: 3,
      slot: 217,
      cursor: { id: '0-1-52,1-1-7', segment: 'binlog.000003', offset: 4711, time: '2026-11-22T13:00:00Z' },
      lagBytes: 3_500_000,
      lagSeconds: 12.2,
      twins: [
        { node: 'db-1', role: 'master', ready: true, reason: 'writes term 3', lagBytes: 0 },
        {
          node: 'db-2',
          role: 'standby',
          ready: false,
          reason: 'gap: binlog.000002 was purged before it was shipped, and it is needed',
          lagBytes: 3_500_000,
        },
      ],
      stores: [{ name: 'main', lagBytes: 3_500_000, lagSeconds: 12.2 }],
    });
  });

  test('rule 21: the lag is the largest over the twins, so a master on a stalled replica does not look fine', () => {
    const { lagBytes, lagSeconds } = statusReport(overview, expected).streams.at(-1)!;
    expect({ lagBytes, lagSeconds }).toEqual({ lagBytes: 3_500_000, lagSeconds: 12.2 });
  });

  test('lists streams of the config that nobody runs, and streams that only the twins know', () => {
    const { streams } = statusReport(overview, expected);
    expect(streams.map(({ name }) => name)).toEqual(['billing', 'old', 'orders']);
    expect(streams[0]).toEqual({
      name: 'billing',
      master: null,
      term: 0,
      slot: 0,
      cursor: null,
      lagBytes: null,
      lagSeconds: null,
      twins: [],
      stores: [{ name: 'main', lagBytes: null, lagSeconds: null }],
    });
    expect(streams[1]).toMatchObject({ term: 3, slot: 217, cursor: null, stores: [] });
  });
});

/** A stream of a plan with two copies, as its master tells of them. */
const withCopies: Overview = {
  streams: [{ name: 'orders', master: 'db-1', cursor }],
  twins: [
    twin(
      'db-1',
      twinStream({
        role: 'master',
        lagSeconds: 0,
        stores: [
          {
            name: 'nas',
            lagBytes: 2_000_000,
            lagSeconds: 90,
            delaySeconds: 0,
            state: 'failing',
            reason: 'no space left',
          },
          { name: 'abroad', lagBytes: 0, lagSeconds: 0, delaySeconds: 1_800, state: 'ok' },
        ],
      }),
    ),
  ],
};
const planned = { cluster: 'acme', stores: { orders: ['main', 'abroad', 'nas'] } };

describe('copies', () => {
  const storesIn = (given: Overview) => statusReport(given, planned).streams[0]!.stores;

  test('are reported after the primary, by rank, as the master tells', () => {
    expect(storesIn(withCopies)).toEqual([
      { name: 'main', lagBytes: 0, lagSeconds: 0 },
      { name: 'nas', lagBytes: 2_000_000, lagSeconds: 90, delaySeconds: 0, state: 'failing', reason: 'no space left' },
      { name: 'abroad', lagBytes: 0, lagSeconds: 0, delaySeconds: 1_800, state: 'ok' },
    ]);
  });

  test('are unknown while nobody is master; a promoted one stands first', () => {
    const { streams } = withCopies;
    expect(storesIn({ streams, twins: [] }).slice(1)).toEqual([
      { name: 'abroad', lagBytes: null, lagSeconds: null },
      { name: 'nas', lagBytes: null, lagSeconds: null },
    ]);
    const promotion = { archive: 'a1', generation: 1, store: 'nas' };
    const promoted = storesIn({ streams: [{ ...streams[0]!, promotion }], twins: [] });
    expect(promoted.map(({ name }) => name)).toEqual(['nas', 'abroad']);
  });

  test('have a table of their own on a terminal', () => {
    const text = statusText(statusReport(withCopies, planned), { width: 80, colour: false, isSolo: false });
    expect(`\n${text.slice(text.indexOf('STREAM  STORE'))}\n`).toBe(`
STREAM  STORE   STATE    BEHIND         DELAY   WHY
orders  main    primary  0 B            -
orders  nas     failing  1.9 MiB, 90 s  -       no space left
orders  abroad  ok       0 B            30 min
`);
  });
});

describe('what needs a person', () => {
  const told = (streams: readonly StreamStatus[], isSolo = false) =>
    attentionTo({ cluster: 'acme', streams }, { isSolo }).map(
      ({ level, streams: names, what }) => `${level} ${names.join(' ')}: ${what}`,
    );
  const db = (node: string, given: Partial<TwinStatus> = {}): TwinStatus => ({
    node,
    role: 'standby',
    ready: true,
    reason: 'resume: the last chunk is here',
    lagBytes: 0,
    ...given,
  });
  const healthy: StreamStatus = {
    name: 'orders',
    master: 'db-1',
    term: 1,
    slot: 1,
    cursor: null,
    lagBytes: 0,
    lagSeconds: 0,
    twins: [db('db-1', { role: 'master', reason: 'master' }), db('db-2')],
    stores: [],
  };
  const store = (given: object) => ({ name: 'nas', lagBytes: 0, lagSeconds: 0, ...given });

  test('nothing, where all is well: a healthy pair, and a daemon that is meant to be alone', () => {
    expect(told([healthy])).toEqual([]);
    expect(told([{ ...healthy, twins: healthy.twins.slice(0, 1) }], true)).toEqual([]);
    expect(told([{ ...healthy, stores: [store({}), store({ state: 'waiting' }), store({ state: 'ok' })] }])).toEqual(
      [],
    );
  });

  test.each<[string, Partial<StreamStatus>, string]>([
    ['no master', { master: null }, 'error orders: nobody leads it: nothing is shipped'],
    ['no twin to take over', { twins: [db('db-1')] }, 'warning orders: only db-1 is there: nobody could take over'],
    [
      'a log that is not shipped',
      { lagBytes: 2048, lagSeconds: 90 },
      'warning orders: the archive is 2.0 KiB, 90 s behind the log',
    ],
    [
      'a gap',
      { twins: [db('db-1'), db('db-2', { ready: false, reason: 'gap: purged' })] },
      'error orders: db-2 could not take over: gap: purged',
    ],
    [
      'a replica that is behind',
      { twins: [db('db-1'), db('db-2', { ready: false, reason: 'behind: it replicates' })] },
      'warning orders: db-2 could not take over: behind: it replicates',
    ],
    [
      'a daemon that cannot begin',
      { twins: [db('db-1'), db('db-2', { ready: false, role: 'starting', reason: 'no archive yet' })] },
      'warning orders: db-2 has not begun: no archive yet',
    ],
    [
      'a master whose store is full',
      { twins: [db('db-1', { role: 'master', reason: 'master; store: no space left' }), db('db-2')] },
      'warning orders: db-1 leads, but store: no space left',
    ],
    [
      'a copy that fails',
      { stores: [store({ name: 'main' }), store({ state: 'failing', reason: 'denied' })] },
      'error orders: its copy in nas fails: denied',
    ],
    [
      'a copy that is late',
      { stores: [store({ name: 'main' }), store({ state: 'ok', lagSeconds: 7200 })] },
      'warning orders: its copy in nas is 2 h late',
    ],
  ])('%s', (_, given, expected) => expect(told([{ ...healthy, ...given }])).toEqual([expected]));

  test('errors come first, and what is so of several streams is said once', () => {
    const late = { ...healthy, name: 'audit', lagBytes: 1, lagSeconds: 61 };
    const [one, other] = [
      { ...healthy, master: null },
      { ...healthy, name: 'billing', master: null },
    ];
    expect(told([late, one, other])).toEqual([
      'error orders billing: nobody leads it: nothing is shipped',
      'warning audit: the archive is 1 B, 61 s behind the log',
    ]);
  });
});

describe('on a terminal', () => {
  const draw = (given: Overview, width = 80) =>
    statusText(statusReport(given, expected), { width, colour: false, isSolo: false });

  test('80 columns: what needs a person first, in full, then the tables', () => {
    expect(`\n${draw(overview)}\n`).toBe(`
cluster acme: 3 streams, 2 daemons

error  billing, old: no daemon that is alive ships it
error  orders: db-2 could not take over: gap: binlog.000002 was purged before it
      was shipped, and it is needed

STREAM   MASTER  TERM  SLOT  LAG            ARCHIVED UP TO
billing  none    0     0     -              nothing yet
old      none    3     217   -              nothing yet
orders   db-1    3     217   3.3 MiB, 12 s  0-1-52,1-1-7 at binlog.000003:4711

STREAM  TWIN  ROLE     READY  LAG      WHY
orders  db-1  master   yes    0 B      writes term 3
orders  db-2  standby  no     3.3 MiB  gap: binlog.000002 was purged before it …
`);
  });

  test('no daemon alive', () => {
    expect(draw({ streams: [], twins: [] })).toContain('error  no daemon of this cluster is alive: nothing is shipped');
  });

  test.each([40, 80, 120])('no line is longer than %d columns, however long the names and GTID sets', (width) => {
    const long: Overview = {
      streams: [
        {
          name: 'orders',
          master: 'm'.repeat(60),
          cursor: { ...cursor, position: { ...cursor.position, id: '0-1-52,'.repeat(40) } },
        },
      ],
      twins: [twin('n'.repeat(60), twinStream({ reason: 'fork: '.repeat(40), lagBytes: 1 }))],
    };
    for (const line of draw(long, width).split('\n')) expect(line.length).toBeLessThanOrEqual(width);
  });

  test('what others wrote cannot command the terminal', () => {
    const sly: Overview = { streams: [], twins: [twin('db-1', twinStream({ reason: 'gap\x1b[2J\nstolen' }))] };
    const text = draw(sly).replaceAll(/\s+/g, ' ');
    expect(text).not.toContain('\x1b');
    expect(text).toContain('gap [2J stolen');
  });

  test('colour marks what is wrong', () => {
    const text = statusText(statusReport(overview, expected), { width: 80, colour: true, isSolo: false });
    expect(text).toContain('\x1b[31mno');
    expect(text).toContain('\x1b[31mnone');
  });
});

test.each([
  [0, '0 B'],
  [1023, '1023 B'],
  [1024, '1.0 KiB'],
  [1536, '1.5 KiB'],
  [12 * 1024 ** 2, '12 MiB'],
  [1024 ** 2 - 1, '1.0 MiB'],
])('%d bytes read %s', (bytes, text) => expect(bytesText(bytes)).toBe(text));

test.each([
  [0.26, '0.3 s'],
  [42, '42 s'],
  [300, '5 min'],
  [10_800, '3 h'],
  [172_800, '2 d'],
])('%d seconds read %s', (seconds, text) => expect(secondsText(seconds)).toBe(text));
