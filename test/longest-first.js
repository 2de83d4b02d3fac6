import Sequencer from '@jest/test-sequencer'; // which comes with jest

/**
 * What takes longest comes first: begun last it would go on alone. Of a test that it has never run Jest goes by the size of
 * its file, and the longest ones are small.
 */
const FIRST = [
  'integration/prometheus',
  'chaos/',
  'integration/kubernetes-pods',
  'cluster/',
  'contract/',
  'integration/',
];

export default class LongestFirst extends Sequencer {
  sort(tests) {
    return super.sort(tests).sort((one, other) => rank(one) - rank(other));
  }
}

function rank({ path }) {
  const at = FIRST.findIndex((part) => path.includes(`/test/${part}`));
  return at < 0 ? FIRST.length : at;
}
