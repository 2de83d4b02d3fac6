import { readFloor } from '../archive/walk.ts';
import { comparePlaces, type Place, placeText } from '../core/keys.ts';
import type { ArchiveNotWhole } from '../errors.ts';
import type { Audit, AuditedChunk } from './audit.ts';
import type { ChunkReader } from './chunks.ts';
import type { Progress } from './progress.ts';
import type { Proof, ProofNote } from './proof-note.ts';

export interface ProveOptions {
  readonly progress: Progress;
  /** Where to go on if this is interrupted; null: nowhere. */
  readonly note: ProofNote | null;
}

/** What came of reading every payload. */
export interface Proven {
  /** Encrypted chunks that could not be opened. */
  readonly unopened: number;
  /** Chunks that an earlier run had proven, which was interrupted. */
  readonly before: number;
}

/** What dies loses no more work than this. */
const SAVE_EVERY_MS = 1_000;

/** Proves the payloads of all chunks that the audit met; what is damaged becomes its fault. */
export async function provePayloads(
  chunks: ChunkReader,
  audit: Audit,
  { progress, note }: ProveOptions,
): Promise<Proven> {
  const known = (await note?.load()) ?? null;
  const ledger = new Ledger(audit.chunks, known);
  const { pending } = ledger;
  progress.stage('checking payloads', {
    unit: 'bytes',
    total: pending.reduce((sum, { storedBytes }) => sum + storedBytes, 0),
  });
  const damaged: { place: Place; error: ArchiveNotWhole }[] = [];
  let saved = Promise.resolve();
  let savedMs = performance.now();
  const save = () => {
    savedMs = performance.now();
    const proof = ledger.proof();
    if (proof !== null) saved = saved.then(() => note?.save(proof));
  };
  try {
    await chunks.proveEach(pending, (chunk, found) => {
      if (typeof found !== 'string') damaged.push({ place: chunk.place, error: found });
      ledger.enter(chunk, typeof found === 'string' ? found : 'damaged');
      progress.advance(chunk.storedBytes);
      if (performance.now() - savedMs >= SAVE_EVERY_MS) save();
    });
    await saved;
    await note?.clear();
  } catch (error) {
    save();
    await saved;
    throw error;
  } finally {
    progress.end();
  }
  const floor = await readFloor(chunks.archive);
  for (const { place, error } of damaged) if (comparePlaces(place, floor) >= 0) audit.faultOf(place, error);
  return { unopened: ledger.unopened, before: audit.chunks.length - pending.length };
}

type Outcome = 'proven' | 'unopened' | 'damaged';

/** Chunks are proven in no order; what counts for later is up to where all of them are. */
class Ledger {
  readonly pending: readonly AuditedChunk[];
  readonly #chunks: readonly AuditedChunk[];
  readonly #outcomes = new Map<AuditedChunk, Outcome>();
  readonly #damaged: Place[] = [];
  #next: number;
  /** Up to `#next`. */
  #unopened: number;

  constructor(chunks: readonly AuditedChunk[], known: Proof | null) {
    const index = chunks.findIndex(({ place, digest }) => known?.upTo.digest === digest && isSame(known.upTo, place));
    const again = new Set(index === -1 ? [] : known!.damaged.map(placeText));
    this.#chunks = chunks;
    this.#next = index + 1;
    this.#unopened = index === -1 ? 0 : known!.unopened;
    this.pending = chunks.filter(({ place }, at) => at > index || again.has(placeText(place)));
    for (const { place } of chunks.slice(0, index + 1)) if (again.has(placeText(place))) this.#damaged.push(place);
  }

  get unopened(): number {
    return this.#unopened;
  }

  enter(chunk: AuditedChunk, outcome: Outcome): void {
    this.#outcomes.set(chunk, outcome);
    for (let at = this.#chunks[this.#next]; at !== undefined; at = this.#chunks[this.#next]) {
      const known = this.#outcomes.get(at);
      if (known === undefined) return;
      this.#outcomes.delete(at);
      if (known === 'unopened') this.#unopened++;
      if (known === 'damaged') this.#damaged.push(at.place);
      this.#next++;
    }
  }

  proof(): Proof | null {
    const last = this.#chunks[this.#next - 1];
    if (last === undefined) return null;
    const { place, digest } = last;
    return { upTo: { ...place, digest }, damaged: [...this.#damaged], unopened: this.#unopened };
  }
}

const isSame = (a: Place, b: Place) => comparePlaces(a, b) === 0;
