import type { Position } from '../../core/position.ts';
import type { Head } from '../source.ts';
import { incarnationOf } from './history.ts';
import type { OwnLog } from './own-log.ts';
import type { Comparison } from './sameness.ts';
import { type Cluster, Descent, isInHistory, type Timeline } from './timelines.ts';
import { parseWalName } from './wal-name.ts';

/** What an archive tells of the timelines that it is on, remembered: only what is new is looked at again. */
export class Branches {
  #descent: Descent | null = null;

  /**
   * The history of the head's timeline, by its file in the archive; null where that is not there, or is encrypted. Reads
   * the store.
   */
  async descentOf(cluster: Cluster, head: Head, { origin, incarnation }: Position): Promise<Descent | null> {
    const known = this.#descent;
    if (known !== null && known.find({ origin, incarnation }) === known.newest) return known;
    for await (const chunk of head.history()) {
      const name = parseWalName(chunk.to.segment);
      if (name?.kind !== 'history' || chunk.to.origin !== origin || chunk.to.incarnation !== incarnation) continue;
      const bytes = await head.bytes(chunk);
      if (bytes === null || incarnationOf(name.timeline, bytes) !== incarnation) continue;
      this.#descent = new Descent(cluster, name.timeline, bytes);
      return this.#descent;
    }
    return null;
  }

  /** Compares the chunks of a timeline, and of those before it, that end at an LSN or before; what has no file here is common. */
  async compareBefore(own: OwnLog, head: Head, timeline: Timeline, lsn: bigint): Promise<Comparison> {
    const { descent, wal } = own;
    let differs = false;
    for await (const chunk of head.history()) {
      const of = descent.find(chunk.to);
      if (!of || of.begin > timeline.begin || (of === timeline && descent.lsnOf(chunk.to) > lsn)) continue;
      if (isInHistory(chunk.to) || (await wal.has(chunk)) !== false) return { differs, common: chunk };
      differs = true;
    }
    return { differs, common: null };
  }
}
