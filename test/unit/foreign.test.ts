import { expect, test } from '@jest/globals';
import { findEnd } from '../../src/archive/walk.ts';
import { encodeHeader } from '../../src/core/header.ts';
import { placeKey } from '../../src/core/keys.ts';
import { tellForeign } from '../../src/ship/foreign.ts';
import { chunkAt, emptyArchive, STREAM, takeOver } from '../helpers/hand-made-archive.ts';

test('a stranger’s object is told once, however often it is met', async () => {
  const { archive, memory } = emptyArchive();
  const end = await takeOver(archive);
  const errors: string[] = [];
  const log = { debug() {}, info() {}, warn() {}, error: (message: string) => void errors.push(message) };
  const tell = tellForeign({ metrics: { alarm() {} }, log });
  for (const [n, slot] of [end.slot, end.slot + 1].entries()) {
    const stranger = encodeHeader({ ...chunkAt({ ...end, slot }, n), claim: 'a stranger' });
    memory.overwrite(placeKey(STREAM, { term: end.term, slot }), stranger.frame);
    for (let look = 0; look < 3; look++) await findEnd(archive, null, tell);
    expect(errors).toHaveLength(n + 1);
    expect(errors[n]).toContain(`slot ${slot} holds a chunk`);
  }
});
