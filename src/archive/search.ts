/** So many places are probed at once: where each answer takes a round trip, few rounds are worth more than few requests. */
export const PROBES = 7;

/**
 * The smallest number from `low` to `high` at which the test holds, where it holds at `high` (that is not asked) and, once
 * it holds, for all above. Where it does not behave so, still a number at which it holds, or `high`.
 */
export async function firstWhere(low: number, high: number, test: (n: number) => Promise<boolean>): Promise<number> {
  let [least, most] = [low, high];
  while (least < most) {
    const stride = Math.ceil((most - least) / (PROBES + 1));
    const probes: number[] = [];
    for (let n = least + stride - 1; n < most; n += stride) probes.push(n);
    const answers = await Promise.all(probes.map(test));
    const hit = answers.indexOf(true);
    if (hit !== 0) least = probes.at(hit === -1 ? -1 : hit - 1)! + 1;
    if (hit !== -1) most = probes[hit]!;
  }
  return least;
}

/** The results in order, of at most so many at once. */
export async function mapAtOnce<T, R>(items: readonly T[], atOnce: number, map: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  for (let n = 0; n < items.length; n += atOnce) {
    results.push(...(await Promise.all(items.slice(n, n + atOnce).map(map))));
  }
  return results;
}
