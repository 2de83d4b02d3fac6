import { z } from 'zod';
import { ShipmateError } from '../errors.ts';
import type { ChainEnd } from './chain.ts';
import { demandReadable, FORMAT_VERSION } from './header.ts';
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
  /** When it was made, RFC 3339: copies follow it later. */
  time: z.string().exactOptional(),
});

export interface Floor {
  readonly end: ChainEnd;
  /** When it was made, milliseconds since 1970; null where it does not tell. */
  readonly timeMs: number | null;
}

export function encodeFloor({ foreign: _, ...end }: ChainEnd, time?: Date): Buffer {
  const value = { v: FORMAT_VERSION, ...end, ...(time && { time: time.toISOString() }) };
  return Buffer.from(`${JSON.stringify(value)}\n`);
}

export const decodeFloor = (bytes: Uint8Array, key: string): ChainEnd => decodeTimedFloor(bytes, key).end;

export function decodeTimedFloor(bytes: Uint8Array, key: string): Floor {
  try {
    const read: unknown = JSON.parse(Buffer.from(bytes).toString('utf8'));
    demandReadable(read, `object ${key}`);
    const { v: _, time, ...value } = floor.parse(read);
    const timeMs = time === undefined ? Number.NaN : Date.parse(time);
    return { end: { ...value, foreign: false }, timeMs: Number.isNaN(timeMs) ? null : timeMs };
  } catch (cause) {
    if (cause instanceof ShipmateError) throw cause;
    throw new ShipmateError(`object ${key} can't be read as a floor`, {
      code: 'BAD_OBJECT',
      hint: 'it was damaged, or written by something else',
      cause,
    });
  }
}
