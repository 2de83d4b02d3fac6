import { BandwidthRun } from '../helpers/bandwidth-run.ts';
import { type Report, round } from './figures.ts';

export interface BandwidthBench {
  /** Shipped and copied. */
  readonly mib?: number;
  /** Of the link, MiB/s. */
  readonly link?: number;
}

const SHIPPING = 0.75;
const CHUNK = '8MiB';
const LIVE_BYTES = 1_000_000;
const AIM = { lagSeconds: 1, deviationPercent: 10, lentSeconds: 1 };

/**
 * A log that is shipped as fast as its part of a limited link allows, its copy in class `slow` at the same time, and a log
 * that is being written meanwhile. What the two large ones send can't be compressed: the link is full of it.
 */
export async function benchBandwidth({ mib = 2_048, link = 24 }: BandwidthBench = {}): Promise<Report> {
  const options = { linkMib: link, shipping: SHIPPING, chunk: CHUNK, liveBytesPerSecond: LIVE_BYTES };
  const run = await BandwidthRun.prepare({ ...options, historyMib: mib });
  try {
    const { lagMaxMs, slow, lentAfterMs, copiedMib } = await run.run();
    const presetMib = link * (1 - SHIPPING);
    const deviations = slow.map(({ share }) => round(Math.abs(share - 1) * 100, 1));
    const largest = Math.max(...deviations);
    const ratesMib = slow.map(({ share }) => round(share * presetMib));
    return {
      title: `${mib} MiB shipped, and copied at slow = ${presetMib} MiB/s, over a link of ${link} MiB/s; file stores`,
      figures: [
        {
          what: 'longest lag of a log written at 1 MB/s',
          value: round(lagMaxMs / 1000),
          unit: 's',
          atMost: AIM.lagSeconds,
        },
        ...ratesMib.map((value, n) => ({ what: `slow, over half a minute, ${n + 1}.`, value, unit: 'MiB/s' })),
        { what: 'largest deviation from its rate', value: largest, unit: '%', atMost: AIM.deviationPercent },
        { what: 'until what is unused is lent', value: round(lentAfterMs / 1000), unit: 's', atMost: AIM.lentSeconds },
      ],
      data: { mib, ...options, lagMaxMs, ratesMib, deviations, lentAfterMs, copiedMib },
    };
  } finally {
    await run.stop();
  }
}
