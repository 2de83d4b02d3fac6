/** What a store said of itself when it was looked at. */
export interface CopyFacts {
  /** Whether it holds this archive already, in whole or in part. */
  readonly holds: boolean;
  /** Null: there is no bound that anybody told. */
  readonly freeBytes: number | null;
  /** Whether what it still lacks of the archive fits in there. */
  readonly fits: boolean;
}

export interface Candidate {
  readonly name: string;
  /** Null: it has not answered yet. */
  readonly facts: CopyFacts | null;
  /** The rank that it is copied to with, from 1; null: it is not. */
  readonly rank: number | null;
}

export interface Choice {
  /** Those that come first, whatever is known of them. */
  readonly order: readonly string[];
  /** How many are copied to. */
  readonly count: number;
}

/**
 * The stores to copy to, the first of rank 1. What is copied to keeps its rank as long as it has answered once, so that
 * nobody's free bytes move another one's due time; otherwise those come first that hold the archive, then those that what
 * is missing fits in, the emptiest first, and last those that do not answer.
 */
export function rankCopies(candidates: readonly Candidate[], { order, count }: Choice): string[] {
  const ordered = (name: string) => (order.includes(name) ? order.indexOf(name) : order.length);
  const merits = ({ name, facts, rank }: Candidate) => [
    ordered(name),
    (facts && rank) ?? Number.MAX_SAFE_INTEGER,
    facts === null ? 1 : 0,
    facts?.holds ? 0 : 1,
    facts?.fits ? 0 : 1,
    -(facts ? (facts.freeBytes ?? Number.POSITIVE_INFINITY) : 0),
  ];
  const byMerit = (a: Candidate, b: Candidate): number => {
    const [left, right] = [merits(a), merits(b)];
    const first = left.findIndex((merit, index) => merit !== right[index]);
    if (first !== -1) return left[first]! < right[first]! ? -1 : 1;
    return a.name < b.name ? -1 : 1;
  };
  return [...candidates]
    .sort(byMerit)
    .slice(0, count)
    .map(({ name }) => name);
}

/** How much later than the primary the copy of a rank is: those that count for an acknowledgement are not. */
export function copyDelayMs(
  rank: number,
  { delayMs, ack }: { readonly delayMs: number; readonly ack: number },
): number {
  return rank < ack ? 0 : rank * delayMs;
}

export interface Behind {
  /** Bytes of objects that the copy lacks, due or not; null where they are not counted yet. */
  readonly missingBytes: number | null;
  /** Wall clocks, milliseconds: of the first object that it lacks, and of the newest one. */
  readonly nextMs: number;
  readonly newestMs: number;
  readonly delayMs: number;
  readonly nowMs: number;
}

/**
 * How far a copy is behind what is due. Of the bytes that a delayed copy lacks, those count that were written before the
 * delay began, as if they had been written evenly: reading every header ahead to tell would cost more than it is worth.
 */
export function copyLag({ missingBytes, nextMs, newestMs, delayMs, nowMs }: Behind): {
  readonly bytes: number | null;
  readonly seconds: number;
} {
  const dueSinceMs = nowMs - delayMs - nextMs;
  if (dueSinceMs < 0) return { bytes: 0, seconds: 0 };
  const spanMs = newestMs - nextMs;
  const part = spanMs <= 0 ? 1 : Math.min(1, dueSinceMs / spanMs);
  return { bytes: missingBytes === null ? null : Math.round(missingBytes * part), seconds: dueSinceMs / 1000 };
}
