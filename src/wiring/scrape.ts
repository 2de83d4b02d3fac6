import { within } from '../archive/retry.ts';
import type { Coordination } from '../coordination/coordination.ts';
import { statusReport } from '../core/status.ts';
import type { Metrics } from '../metrics.ts';

/** A scrape must not wait for an etcd that is away: what only that knows is left out then. */
const ASK_MS = 500;

/** The daemon's numbers as they are now, with those that only the twins together can tell. */
export async function scrape(metrics: Metrics, coordination: Coordination): Promise<string> {
  const told = coordination.overview().then((overview) => statusReport(overview, { cluster: '', stores: {} }));
  const [report, certificates] = await Promise.all([
    within(ASK_MS, told).catch(() => null),
    coordination.certificates(),
  ]);
  metrics.coordination(coordination.health());
  metrics.certificates(certificates);
  metrics.told(report, { twins: coordination.kind === 'etcd' });
  return metrics.text();
}
