import { expect, test } from '@jest/globals';
import { Progress } from '../../src/ship/progress.ts';

/** Looks once every ten seconds for so many minutes; returns what the last look said. */
function looker() {
  let nowMs = 0;
  const progress = new Progress(() => nowMs);
  return {
    look(minutes: number, state: (look: number) => { mark: string; excused: boolean }): boolean {
      let isStuck = false;
      for (let look = 0; look < minutes * 6; look++) {
        nowMs += 10_000;
        isStuck = progress.isStuck(state(look));
      }
      return isStuck;
    },
    sleep: (minutes: number) => {
      nowMs += minutes * 60_000;
    },
  };
}

const still = () => ({ mark: 'master 3 7', excused: false });

test('a loop that has work and shows nothing for five minutes is stuck, until it gets on', () => {
  const { look } = looker();
  expect(look(4, still)).toBe(false);
  expect(look(2, still)).toBe(true);
  expect(look(1, (at) => ({ mark: `master 3 ${8 + at}`, excused: false }))).toBe(false);
});

test('one that gets on, or waits for what is known, never is', () => {
  const { look } = looker();
  expect(look(60, (at) => ({ mark: `master 3 ${at}`, excused: false }))).toBe(false);
  expect(look(60, () => ({ mark: 'master 3 7', excused: true }))).toBe(false);
  expect(look(4, still)).toBe(false);
});

test('what nobody looked at for an hour proves nothing', () => {
  const { look, sleep } = looker();
  look(1, still);
  sleep(60);
  expect(look(4, still)).toBe(false);
});
