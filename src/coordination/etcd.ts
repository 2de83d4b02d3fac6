import type { Log } from '../core/log.ts';
import type { Coordination, Overview } from './coordination.ts';
import { EtcdArchives, EtcdCursors } from './etcd/boards.ts';
import { expiriesOf } from './etcd/certificates.ts';
import { Client, type TlsPaths } from './etcd/client.ts';
import { Elections, first } from './etcd/election.ts';
import { Keys } from './etcd/keys.ts';
import { type Entry, rangeRequest, toEntry, transact } from './etcd/kv.ts';
import { EtcdLimits } from './etcd/limits.ts';
import { EtcdRequests } from './etcd/requests.ts';
import { Session } from './etcd/session.ts';
import { EtcdTwins, toTwins } from './etcd/twins.ts';
import { overviewOf, readCursor, readPromotion } from './formats.ts';

export interface EtcdOptions {
  readonly cluster: string;
  readonly node: string;
  /** `http://host:port` or `https://host:port`, of every member. */
  readonly endpoints: readonly string[];
  /** How long a lease outlives its last keep-alive, milliseconds; whole seconds, and at least what etcd allows. */
  readonly ttlMs: number;
  /** Paths of PEM files. */
  readonly tls?: TlsPaths;
  readonly username?: string;
  readonly password?: string;
  /** What a leader does when its lease runs out without proof that it was lost: ship on, or end the term. */
  readonly onEtcdLoss: 'continue' | 'stop';
  readonly log: Log;
}

/** etcd expires a lease up to a second late, and a new one of its leaders gives it its full time again. */
const EXPIRY_MARGIN_MS = 3_000;

/**
 * Coordination through etcd. Opening doesn't wait for it: it is reached when first needed, and while it is not, calls
 * reject with ETCD_UNREACHABLE (verdict retry), campaigns wait. The lease begins with the first campaign or publication.
 * Throws where the certificates can't be read.
 */
export async function openEtcd(options: EtcdOptions): Promise<Coordination> {
  const { cluster, node, endpoints, ttlMs, tls, username, password, onEtcdLoss, log } = options;
  const keys = new Keys(cluster);
  const login = username === undefined ? null : { username, password: password ?? '' };
  const client = await Client.open({ endpoints, tls: tls ?? null, login, root: keys.all, log });
  const session = new Session({ client, ttlMs, log, nowMs: () => performance.now() });
  const elections = new Elections({ client, session, keys, node, onEtcdLoss, log, sweepMs: ttlMs });
  const common = { client, keys, log };
  return {
    kind: 'etcd',
    cursors: new EtcdCursors(common),
    archives: new EtcdArchives(common),
    twins: new EtcdTwins({ ...common, session, node, namesakeMs: ttlMs + EXPIRY_MARGIN_MS }),
    requests: new EtcdRequests(common),
    limits: new EtcdLimits(common),
    elector: (stream) => elections.elector(stream),
    overview: () => overview(client, keys),
    health: () => ({ reachable: client.reachable, leaseRemainingMs: session.current?.remainingMs() ?? null }),
    certificates: () => expiriesOf(tls ?? {}),
    close: async () => {
      elections.close();
      await session.close();
      client.close();
    },
  };
}

/** Both ranges in one transaction, so that they are of one moment. */
async function overview(client: Client, keys: Keys): Promise<Overview> {
  const { responses } = await transact(client, {
    success: [
      { request_range: rangeRequest({ prefix: keys.streams }) },
      { request_range: rangeRequest({ prefix: keys.nodes }) },
    ],
  });
  const [streams = [], nodes = []] = responses.map(({ response_range }) => response_range.kvs.map(toEntry));
  return { streams: toStreams(streams, keys), twins: toTwins(nodes) };
}

function toStreams(entries: readonly Entry[], keys: Keys): Overview['streams'] {
  const found = entries.flatMap((entry) => {
    const parsed = keys.parse(entry.key);
    return parsed && parsed.kind !== 'requests' ? { ...parsed, entry } : [];
  });
  const byStream = Map.groupBy(found, ({ stream }) => stream);
  return [...byStream].map(([name, parts]) => {
    const of = (kind: string) => parts.filter((part) => part.kind === kind).map(({ entry }) => entry);
    return overviewOf(name, {
      master: first(of('leader'))?.value ?? null,
      cursor: readCursor(of('cursor')[0]?.value ?? null),
      promotion: readPromotion(of('generation')[0]?.value ?? null),
    });
  });
}
