/** Tests run beside each other, but for those that measure times: they take turns (`test:timed` in package.json). */
export default {
  testEnvironment: 'node',
  extensionsToTreatAsEsm: ['.ts'],
  testMatch: ['<rootDir>/test/{unit,contract,integration,cluster,chaos}/**/*.test.ts'],
  testSequencer: '<rootDir>/test/longest-first.js',
  transform: {
    '^.+\\.ts$': [
      '@swc/jest',
      { jsc: { parser: { syntax: 'typescript' }, target: 'es2024' }, module: { type: 'es6' } },
    ],
  },
  maxWorkers: 2,
  // A deadline ends a broken test, and measures nothing: `until` gives up first, and says what it waited for.
  testTimeout: 90_000,
  // A worker that leaves nothing open needs longer than half a second to end on a busy machine, and was told off for a leak.
  workerGracefulExitTimeout: 10_000,
};
