import { z } from 'zod';
import { ShipmateError } from '../errors.ts';
import type { ChainEnd } from './chain.ts';
import { FORMAT_VERSION } from './header.ts';
import { positionSchema } from './position.ts';

const place = z.object({ term: z.int(), slot: z.int() });

/** What a floor object holds: the walk's state at the place where readers start after retention (protocol rule 18). */
const floor = z.object({
  v: z.literal(FORMAT_VERSION),
  archive: z.string(),
  stream: z.string(),
  term: z.int().positive(),
  slot: z.int().nonnegative(),
  owner: z.string(),
  digest: z.string(),
  position: positionSchema.nullable(),
  last: place.nullable(),
  generation: z.int().nonnegative().default(0),
});

export function encodeFloor({ foreign: _, ...end }: ChainEnd): Buffer {
  const value = { v: FORMAT_VERSION, ...end };
  return Buffer.from(`${JSON.stringify(value)}\n`);
}

export function decodeFloor(bytes: Uint8Array, key: string): ChainEnd {
  try {
    const { v: _, ...value } = floor.parse(JSON.parse(Buffer.from(bytes).toString('utf8')));
    return { ...value, foreign: false };
  } catch (cause) {
    throw new ShipmateError(`object ${key} can't be read as a floor`, {
      code: 'BAD_OBJECT',
      hint: 'it was damaged, or written by a newer Shipmate',
      cause,
    });
  }
}
