import { readArchive } from '../archive/identity.ts';
import { type Reading, readFromFloor } from '../archive/reader.ts';
import { type Range, seek } from '../archive/seek.ts';
import type { Archive, OnObject } from '../archive/walk.ts';
import type { ChainEnd, Met } from '../core/chain.ts';
import type { Read, Result } from '../core/header.ts';
import type { Position } from '../core/position.ts';
import { LivingLog } from '../core/ranges.ts';
import { ArchiveNotWhole, ShipmateError, UsageError } from '../errors.ts';
import type { LogFormat } from '../source/source.ts';
import type { ObjectStore } from '../store/store.ts';
import { notWhole } from './chunks.ts';
import type { Progress } from './progress.ts';

/** A term as its objects tell it. */
export interface TermSummary {
  readonly term: number;
  /** Who opened it, and when; of a term that was sealed before it was opened: who sealed it. */
  readonly node: string;
  readonly time: string;
  /** How it went on; null where it was never opened, or begins below the floor. */
  readonly result: Result | null;
  readonly from: Position | null;
  readonly to: Position | null;
  readonly chunks: number;
  /** Of the log. */
  readonly bytes: number;
  readonly storedBytes: number;
  readonly state: 'open' | 'sealed';
}

type GrowingTerm = { -readonly [K in keyof TermSummary]: TermSummary[K] };

/** Gathers what the chain's headers say: its terms, and what of the log lives. */
export class ChainSummary {
  readonly living: LivingLog;
  readonly #terms: GrowingTerm[] = [];
  readonly #onHeader: () => void;
  readonly #lastTerm: number;
  /** Objects that no owner wrote. */
  foreign = 0;

  /** Of what comes after `lastTerm` nothing is taken in. */
  constructor(from: ChainEnd, onHeader: () => void = () => {}, lastTerm = Number.POSITIVE_INFINITY) {
    this.living = new LivingLog(from.position);
    this.#onHeader = onHeader;
    this.#lastTerm = lastTerm;
  }

  get terms(): readonly TermSummary[] {
    return this.#terms;
  }

  readonly meet: OnObject = (met: Met, read: Read, _end: ChainEnd): void => {
    this.#onHeader();
    if (read.header.term > this.#lastTerm) return;
    if (met === 'foreign') {
      this.foreign++;
      return;
    }
    this.living.add(read);
    const { header } = read;
    const term = this.#termOf(read);
    if (header.kind === 'opening') {
      term.result = header.result;
    } else if (header.kind === 'chunk') {
      term.from ??= header.from;
      term.to = header.to;
      term.chunks++;
      term.bytes += header.length;
      term.storedBytes += header.stored.bytes;
    } else {
      term.state = 'sealed';
    }
  };

  #termOf({ header }: Read): GrowingTerm {
    const last = this.#terms.at(-1);
    if (last?.term === header.term) return last;
    const { node, time } = header;
    const at = header.kind === 'chunk' ? header.from : header.at;
    const counted = { chunks: 0, bytes: 0, storedBytes: 0 };
    const term: GrowingTerm = {
      term: header.term,
      node,
      time,
      result: null,
      from: at,
      to: at,
      ...counted,
      state: 'open',
    };
    this.#terms.push(term);
    return term;
  }
}

/**
 * Reads the chain's headers, and what they say: all of them, or with a range at least those that it needs, beginning with
 * a whole segment. Throws ArchiveNotWhole where they contradict each other.
 */
export async function readSummary(
  archive: Archive,
  progress: Progress,
  range?: Range,
  format?: LogFormat,
): Promise<Reading<ChainSummary>> {
  const find = async (floor: ChainEnd) => (range && format ? seek({ archive, floor, range, format }) : null);
  return reading(progress, () =>
    readFromFloor(archive, (from) => new ChainSummary(from, () => progress.advance(1)), find),
  );
}

/** The archive as a term left it: with what later ones took back. Throws UsageError where there is no such term. */
export async function readThroughTerm(
  archive: Archive,
  progress: Progress,
  term: number,
): Promise<Reading<ChainSummary>> {
  const begin = (from: ChainEnd) => new ChainSummary(from, () => progress.advance(1), term);
  const found = await reading(progress, () => readFromFloor(archive, begin));
  if (found.reader.terms.at(-1)?.term === term) return found;
  throw new UsageError(`the archive of stream ${archive.info.stream} has no term ${term}`, 'see "shipmate ls"');
}

async function reading<T>(progress: Progress, read: () => Promise<T>): Promise<T> {
  progress.stage('reading the archive', { unit: 'objects' });
  try {
    return await read();
  } catch (error) {
    throw notWhole(error);
  } finally {
    progress.end();
  }
}

/** The stream's archive in the store; throws where there is none. */
export async function demandArchive(store: ObjectStore, stream: string): Promise<Archive> {
  let archive: Archive | null;
  try {
    archive = await readArchive(store, stream);
  } catch (error) {
    throw notWhole(error);
  }
  if (archive !== null) return demandName(archive, stream);
  throw new ShipmateError(`store ${store.name} holds no archive of stream ${stream}`, {
    code: 'NO_ARCHIVE',
    hint: 'look whether the right store and prefix are configured, and mounted; "--store" names another one',
  });
}

function demandName(archive: Archive, stream: string): Archive {
  if (archive.info.stream === stream) return archive;
  throw new ArchiveNotWhole(
    `stream.json of stream ${stream} in store ${archive.store.name} is that of stream ${archive.info.stream}`,
    'an archive keeps the name that it was made with: move it back to where it was',
  );
}
