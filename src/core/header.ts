import { createHash } from 'node:crypto';
import { z } from 'zod';
import { ShipmateError } from '../errors.ts';
import type { Place } from './keys.ts';
import { positionSchema } from './position.ts';

/** The format that this version writes; it reads every one up to it. */
export const FORMAT_VERSION = 1;

/**
 * Throws NEWER_FORMAT where what was read says that a later version wrote it: that is not damage, and must neither be
 * mended nor passed over. Every format says its version as `v` in JSON.
 */
export function demandReadable(value: unknown, what: string): void {
  const { v } = versioned.safeParse(value).data ?? {};
  if (v === undefined || v <= FORMAT_VERSION) return;
  throw new ShipmateError(`${what} is of format ${v}, and this Shipmate reads formats up to ${FORMAT_VERSION}`, {
    code: 'NEWER_FORMAT',
    hint: 'a newer Shipmate wrote it: use that version, or a later one, here too',
  });
}

const versioned = z.object({ v: z.number() });

const base = {
  v: z.literal(FORMAT_VERSION),
  archive: z.string(),
  stream: z.string(),
  term: z.int().positive(),
  slot: z.int().nonnegative(),
  /** Who wrote it: a random name taken at each campaign. */
  claim: z.string(),
  /** SHA-256 of the previous header in the chain; in term 1's opening that of stream.json. */
  prev: z.string(),
  node: z.string(),
  /** Wall clock of the writer, RFC 3339. */
  time: z.string(),
  /** Store generation: how often a copy was promoted to primary before (protocol rule 19); absent: never. */
  generation: z.int().positive().exactOptional(),
};

/** How the owner goes on from the previous term's end (protocol rule 14); `start` opens a new archive. */
export const RESULTS = ['start', 'resume', 'switch', 'move', 'truncate', 'reset', 'behind', 'fork', 'gap'] as const;
export type Result = (typeof RESULTS)[number];

/** Where the header is that `prev` names (in a chunk always the slot before); null for stream.json. */
const place = z.object({ term: z.int(), slot: z.int() }).nullable();

const opening = z.object({
  ...base,
  kind: z.literal('opening'),
  /** Where the term's first chunk starts; null while the log has no byte yet. */
  at: positionSchema.nullable(),
  result: z.enum(RESULTS),
  /** What `locate` went by, for whoever reads the archive later. */
  evidence: z.record(z.string(), z.unknown()),
  /** Of a `fork` to another server's log: the end of what still counts, in the log that is left. `at` has the same ID or
   * an older one. */
  common: positionSchema.optional(),
  previous: place,
});

const chunk = z.object({
  ...base,
  kind: z.literal('chunk'),
  from: positionSchema,
  to: positionSchema,
  /** The lowest slot that was not settled yet when this chunk was made: all below it were durable. */
  settled: z.int().nonnegative().exactOptional(),
  /** Plain bytes. */
  length: z.int().positive(),
  /** Whether the segment is known to end at `to`. */
  endsSegment: z.boolean(),
  /** Whether a transaction is open at `to`. */
  openTransaction: z.boolean(),
  /** Times of the first and last event, milliseconds since 1970; null where the log carries none. */
  firstEventMs: z.number().nullable(),
  lastEventMs: z.number().nullable(),
  /** Digest of the plain bytes, hex: see `WitnessDigest`. */
  witness: z.string(),
  codec: z.literal('zstd'),
  /** Of the payload as stored. */
  stored: z.object({ bytes: z.int().nonnegative(), sha256: z.string() }),
  recipients: z.array(z.string()).optional(),
});

const seal = z.object({
  ...base,
  kind: z.literal('seal'),
  /** The term's end. */
  at: positionSchema.nullable(),
  previous: place,
});

const header = z.discriminatedUnion('kind', [opening, chunk, seal]);

export type Opening = z.infer<typeof opening>;
export type Chunk = z.infer<typeof chunk>;
export type Seal = z.infer<typeof seal>;
export type Header = z.infer<typeof header>;

/** A header with the digest of its bytes, by which its successor names it. */
export interface Read<H extends Header = Header> {
  readonly header: H;
  readonly digest: string;
  /** Where the payload begins in the object, bytes. */
  readonly payloadOffset: number;
}

// A zstd skippable frame: any of sixteen magic numbers, a 32-bit length, then bytes that zstd steps over.
const SKIPPABLE_MAGIC = 0x184d2a50;
const FRAME_HEADER_BYTES = 8;
/** No header comes near this; a larger length means that the object is something else. */
const MAX_HEADER_BYTES = 1 << 20;
/** Enough to read almost any header with one request. */
export const HEADER_READ_BYTES = 4096;

export const digestOf = (bytes: Uint8Array | string) => createHash('sha256').update(bytes).digest('hex');

/** The header as the object's first bytes, and its digest. Throws HEADER_TOO_LONG, rather than give what no reader takes. */
export function encodeHeader(value: Header): { frame: Buffer; digest: string } {
  const json = Buffer.from(JSON.stringify(value));
  if (json.length > MAX_HEADER_BYTES) throw tooLong(value, json.length);
  const frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + json.length);
  frame.writeUInt32LE(SKIPPABLE_MAGIC, 0);
  frame.writeUInt32LE(json.length, 4);
  json.copy(frame, FRAME_HEADER_BYTES);
  return { frame, digest: digestOf(json) };
}

/** How many bytes of an object its header takes, frame included, judged by its first 8 bytes; throws on anything else. */
export function headerBytes(start: Uint8Array, key: string): number {
  const view = Buffer.from(start.buffer, start.byteOffset, start.byteLength);
  if (view.length < FRAME_HEADER_BYTES || view.readUInt32LE(0) !== SKIPPABLE_MAGIC)
    throw notOurs(key, 'no header frame');
  const length = view.readUInt32LE(4);
  if (length > MAX_HEADER_BYTES) throw notOurs(key, `a header of ${length} bytes`);
  return FRAME_HEADER_BYTES + length;
}

/** Reads the header at an object's start; `bytes` must hold all of it (`headerBytes`). */
export function decodeHeader(bytes: Uint8Array, key: string): Read {
  const end = headerBytes(bytes, key);
  if (bytes.length < end) throw notOurs(key, 'its header is cut short');
  const json = bytes.subarray(FRAME_HEADER_BYTES, end);
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(json).toString('utf8'));
  } catch (cause) {
    throw notOurs(key, 'its header is not JSON', cause);
  }
  demandReadable(value, `object ${key}`);
  const parsed = header.safeParse(value);
  if (!parsed.success) throw notOurs(key, z.prettifyError(parsed.error), parsed.error);
  return { header: parsed.data, digest: digestOf(json), payloadOffset: end };
}

function tooLong({ kind, stream }: Header, lengthBytes: number): ShipmateError {
  return new ShipmateError(
    `the ${kind} that is due in stream ${stream} would have a header of ${lengthBytes} bytes, and readers take ${MAX_HEADER_BYTES}`,
    {
      code: 'HEADER_TOO_LONG',
      hint: "it holds the log's ID and the list that a binlog begins with: this server's GTIDs are in too many pieces",
    },
  );
}

function notOurs(key: string, why: string, cause?: unknown): ShipmateError {
  return new ShipmateError(`object ${key} can't be read as part of an archive: ${why}`, {
    code: 'BAD_OBJECT',
    hint: 'the object is damaged, or was written by something else: run "shipmate verify --deep"',
    cause,
  });
}

export const generationIn = ({ generation }: Header): number => generation ?? 0;

export const placeIn = (value: Header): Place => ({ term: value.term, slot: value.slot });
