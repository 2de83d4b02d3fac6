import { randomBytes } from 'node:crypto';
import type { ChainEnd } from '../core/chain.ts';
import { endAfter } from '../core/chain.ts';
import { encodeHeader, FORMAT_VERSION, type Header, type Opening, placeIn } from '../core/header.ts';
import { placeKey, placeText } from '../core/keys.ts';
import { Deposed, ShipmateError } from '../errors.ts';
import type { Located } from '../source/source.ts';
import { type RetryOptions, retry } from './retry.ts';
import { type Archive, type OnObject, readPlace, walkOn } from './walk.ts';

/** A random name; every campaign takes a new one, and it writes in one term only (protocol rule 4). */
export const newClaim = () => randomBytes(16).toString('hex');

export interface Writer {
  readonly claim: string;
  readonly node: string;
  /** Wall clock, for the headers' `time`. */
  readonly now: () => Date;
  /** What its seals raise the store generation to (`promote`); by default they leave it as it is. */
  readonly generation?: number;
}

/**
 * Seals the open term, and whatever terms others seal meanwhile, until this claim owns a term that is not opened
 * (protocol rule 12). Goes on through store failures until the signal aborts.
 */
export async function sealOpenTerm(
  archive: Archive,
  from: ChainEnd,
  writer: Writer,
  options: RetryOptions & { onObject?: OnObject },
): Promise<ChainEnd> {
  let end = from;
  for (;;) {
    end = await retry(() => walkOn(archive, end, options.onObject), { ...options, again: mayPass });
    if (end.slot === 0 && end.owner === writer.claim) return end;
    const { frame } = encodeHeader({ ...common(end, writer), kind: 'seal', at: end.position, previous: end.last });
    // Whether it was created, was there before, or failed without a word: the walk meets what is there.
    await retry(() => archive.store.create(placeKey(archive.info.stream, end), frame, options.signal), options);
  }
}

/** Creates slot 0 of a term that this claim owns; throws Deposed if another daemon sealed it first. */
export async function openTerm(
  archive: Archive,
  end: ChainEnd,
  writer: Writer,
  located: Located,
  options: RetryOptions,
): Promise<ChainEnd> {
  const opening: Opening = {
    ...common(end, writer),
    kind: 'opening',
    at: located.at,
    result: located.result,
    evidence: { reason: located.reason, ...located.evidence },
    ...(located.common && { common: located.common }),
    previous: end.last,
  };
  const { frame, digest } = encodeHeader(opening);
  await createMine(archive, opening, digest, () => frame, options);
  return endAfter({ header: opening, digest, payloadOffset: frame.length });
}

/** Header fields of the object at `end`'s place. */
export function common(end: ChainEnd, { claim, node, now, generation: raised = 0 }: Writer) {
  const { archive, stream, term, slot, digest } = end;
  const generation = Math.max(end.generation, raised);
  return {
    v: FORMAT_VERSION,
    archive,
    stream,
    term,
    slot,
    claim,
    prev: digest,
    node,
    time: now().toISOString(),
    ...(generation > 0 && { generation }),
  } as const;
}

/**
 * Creates an object of mine, with the same bytes at every attempt: `exists` with my digest is my own timed-out write;
 * with another it is proof that I am deposed (protocol rule 6).
 */
export async function createMine(
  archive: Archive,
  header: Header,
  digest: string,
  body: () => Uint8Array,
  options: RetryOptions,
): Promise<void> {
  const place = placeIn(header);
  const key = placeKey(archive.info.stream, place);
  const outcome = await retry(() => archive.store.create(key, body(), options.signal), options);
  if (outcome === 'created') return;
  const there = await retry(() => readPlace(archive, place), { ...options, again: mayPass });
  if (there?.digest === digest) return;
  throw new Deposed(
    there === null
      ? `${placeText(place)} of stream ${archive.info.stream} was taken and is gone again`
      : `${placeText(place)} of stream ${archive.info.stream} holds a ${there.header.kind} of node ${there.header.node}`,
  );
}

/** What does not mend itself: stop and tell. Everything else may pass. */
const LASTING = new Set(['CHAIN_BROKEN', 'BAD_OBJECT', 'NEWER_FORMAT', 'DEPOSED', 'STORE_WENT_BACK']);
const mayPass = (error: unknown) => !(error instanceof ShipmateError && LASTING.has(error.code));
