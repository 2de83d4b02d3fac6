import { setTimeout as delay } from 'node:timers/promises';
import { ArchiveNotWhole } from '../errors.ts';

/** An archive has begun a timeline, but has less of it than what leads there: with a daemon that runs it soon has all. */
export class GoingOver extends ArchiveNotWhole {
  /** `id`: what it has to have all before; `term`: of the timeline's beginning. */
  constructor(stream: string, { id, term }: { id: string; term: number }) {
    const command = `shipmate restore ${stream} --to DIR --through-term ${term - 1}`;
    super(
      `the archive of stream ${stream} is going over to another timeline, and has not all yet that comes before ${id}`,
      'with a daemon that runs it takes seconds: start recovery again then, and a daemon if none runs. If none can any more: ' +
        `"${command}" gives all up to there that the timeline before has`,
    );
  }
}

export interface Patience {
  readonly withinMs: number;
  readonly everyMs: number;
  /** Told once. */
  readonly onWait: (error: GoingOver) => void;
}

/**
 * Looks again while the archive is going over to another timeline: a standby that lives by the archive alone would end with
 * the error. Throws GoingOver when it takes longer than that.
 */
export async function onceOver<T>(look: () => Promise<T>, { withinMs, everyMs, onWait }: Patience): Promise<T> {
  const untilMs = performance.now() + withinMs;
  for (let isFirst = true; ; isFirst = false) {
    try {
      return await look();
    } catch (error) {
      if (!(error instanceof GoingOver) || performance.now() >= untilMs) throw error;
      if (isFirst) onWait(error);
    }
    await delay(everyMs);
  }
}
