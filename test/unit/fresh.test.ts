import { describe, expect, test } from '@jest/globals';
import { Fresh } from '../../src/core/fresh.ts';

/** Runs that a test ends, each with its number. */
function runs() {
  const begun: PromiseWithResolvers<number>[] = [];
  const fresh = new Fresh(() => {
    const run = Promise.withResolvers<number>();
    begun.push(run);
    return run.promise;
  });
  return { fresh, begun };
}
const turns = () => new Promise<void>((resolve) => setImmediate(resolve));

describe('an answer that is never older than its question', () => {
  test('is of a run that began after it was asked for, and shared by those who asked meanwhile', async () => {
    const { fresh, begun } = runs();
    const first = fresh.ask();
    const second = [fresh.ask(), fresh.ask()];
    expect(begun).toHaveLength(1);
    begun[0]!.resolve(1);
    expect(await first).toBe(1);
    await turns();
    expect(begun).toHaveLength(2);
    // Asked while the second run is under way: its look may have been before this.
    const third = fresh.ask();
    begun[1]!.resolve(2);
    expect(await Promise.all(second)).toEqual([2, 2]);
    await turns();
    expect(begun).toHaveLength(3);
    begun[2]!.resolve(3);
    expect(await third).toBe(3);
    fresh.ask();
    expect(begun).toHaveLength(4);
  });

  test('is looked for again after a run that failed', async () => {
    const { fresh, begun } = runs();
    const first = fresh.ask();
    const second = fresh.ask();
    begun[0]!.reject(new Error('gone'));
    await expect(first).rejects.toThrow('gone');
    await turns();
    begun[1]!.resolve(2);
    expect(await second).toBe(2);
  });

  test('never comes from two runs at once, whenever it is asked for', async () => {
    let running = 0;
    const fresh = new Fresh(async () => {
      expect(++running).toBe(1);
      await turns();
      running--;
    });
    const asked: Promise<void>[] = [];
    for (let n = 0; n < 200; n++) {
      asked.push(fresh.ask());
      asked.push(asked[n]!.then(() => fresh.ask()));
      if (n % 7 === 0) await turns();
    }
    await Promise.all(asked);
  });
});
