import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { digestOf } from '../core/header.ts';
import type { Place } from '../core/keys.ts';

const place = z.object({ term: z.int(), slot: z.int() });
const note = z.object({
  v: z.literal(1),
  /** All chunks up to this one were looked at. */
  upTo: place.extend({ digest: z.string() }),
  /** Those of them that are to be looked at again. */
  damaged: z.array(place),
  unopened: z.int(),
  timeMs: z.number(),
});

/** How far a deep look at an archive had come when it was interrupted. */
export interface Proof {
  readonly upTo: Place & { readonly digest: string };
  readonly damaged: readonly Place[];
  /** Encrypted chunks of which the stored bytes alone were proven. */
  readonly unopened: number;
}

export interface ProofNote {
  load(): Promise<Proof | null>;
  save(proof: Proof): Promise<void>;
  clear(): Promise<void>;
}

/** What was proven longer ago says too little about today. */
const MAX_AGE_MS = 7 * 86_400_000;

export interface ProofNoteOptions {
  /** Whatever must be the same for the proof to count: the archive, where it lies, what opens it. */
  readonly of: readonly string[];
  /** By default one of the calling user. */
  readonly directory?: string;
  readonly nowMs?: () => number;
}

/** Keeps it in a small file. One that can't be read or written costs the next run its head start, and nothing else. */
export function proofNote({ of, directory = cacheDirectory(), nowMs = Date.now }: ProofNoteOptions): ProofNote {
  const path = join(directory, `${digestOf(JSON.stringify(of)).slice(0, 32)}.json`);
  return {
    async load() {
      try {
        const { upTo, damaged, unopened, timeMs } = note.parse(JSON.parse(await readFile(path, 'utf8')));
        return nowMs() - timeMs < MAX_AGE_MS ? { upTo, damaged, unopened } : null;
      } catch {
        return null;
      }
    },
    async save(proof) {
      try {
        await mkdir(directory, { recursive: true, mode: 0o700 });
        await writeFile(`${path}.new`, JSON.stringify({ v: 1, ...proof, timeMs: nowMs() }), { mode: 0o600 });
        await rename(`${path}.new`, path);
      } catch {}
    },
    clear: () => rm(path, { force: true }).catch(() => {}),
  };
}

/** Beside what `fetch` reads ahead. */
function cacheDirectory(): string {
  try {
    return join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'shipmate', 'verify');
  } catch {
    return '/dev/null'; // below which nothing is kept: a user without a name here, as in a container, has no home
  }
}
