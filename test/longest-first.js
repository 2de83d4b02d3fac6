import Sequencer from '@jest/test-sequencer'; // which comes with jest

/**
 * These take longest, and a processor each: whole clusters under load. Begun last they would go on alone, and all at once they
 * would hold each other up, with the load going on. So they come early, two or three at a time, and others in between.
 */
const LONGEST = ['integration/prometheus', 'chaos/', 'integration/kubernetes-pods', 'cluster/'];
const BETWEEN = 8;

export default class LongestFirst extends Sequencer {
  sort(tests) {
    const sorted = super.sort(tests);
    const longest = sorted.filter((test) => rank(test) >= 0).sort((one, other) => rank(one) - rank(other));
    const others = sorted.filter((test) => rank(test) < 0);
    const early = longest.flatMap((test, n) => [test, ...(n === 0 ? [] : others.splice(0, BETWEEN))]);
    return [...early, ...others];
  }
}

const rank = ({ path }) => LONGEST.findIndex((part) => path.includes(`/test/${part}`));
