import { seededRandom } from '../fakes/faulty-store.ts';

/** What a request asks for: `upload` is a whole object at once, `session`, `piece` and `query` belong to resumable uploads. */
export type Operation =
  | 'upload'
  | 'session'
  | 'piece'
  | 'query'
  | 'cancel'
  | 'read'
  | 'head'
  | 'list'
  | 'delete'
  | 'bucket';

/**
 * What goes wrong with a request:
 * - `refuse`: nothing is done, and `status` is the answer (503 unless told), with Retry-After if `retryAfterSeconds`;
 * - `drop-before`, `drop-after`: the connection is reset, before or after the request was carried out;
 * - `hang`, `hang-after`: there is never an answer, and the request was not, or was, carried out;
 * - `slow`: carried out and answered `delayMs` later;
 * - `trickle`: bodies pass, in both directions, at `bytesPerSecond`;
 * - `damage`: one bit of the body is changed on its way, whatever its direction.
 */
export interface GcsFault {
  readonly kind: 'refuse' | 'drop-before' | 'drop-after' | 'hang' | 'hang-after' | 'slow' | 'trickle' | 'damage';
  /** Default: those that create objects. */
  readonly operations?: readonly Operation[];
  /** Only objects whose name contains this. */
  readonly match?: string;
  /** Of 1; default 1: always. */
  readonly probability?: number;
  /** How many requests it meets; default: all. */
  readonly times?: number;
  readonly status?: number;
  readonly retryAfterSeconds?: number;
  readonly delayMs?: number;
  readonly bytesPerSecond?: number;
}

export interface GcsFaultPlan {
  readonly seed?: number;
  /** The first that applies, and whose dice fall so. */
  readonly rules: readonly GcsFault[];
}

export const CREATING: readonly Operation[] = ['upload', 'session', 'piece'];

export class Faults {
  #rules: { readonly fault: GcsFault; left: number }[] = [];
  #random = seededRandom(0);

  set({ seed = 0, rules }: GcsFaultPlan): void {
    this.#rules = rules.map((fault) => ({ fault, left: fault.times ?? Number.POSITIVE_INFINITY }));
    this.#random = seededRandom(seed);
  }

  of(operation: Operation, name: string): GcsFault | null {
    const rule = this.#rules.find(
      ({ fault: { operations = CREATING, match = '', probability = 1 }, left }) =>
        left > 0 && operations.includes(operation) && name.includes(match) && this.#random() < probability,
    );
    if (!rule) return null;
    rule.left--;
    return rule.fault;
  }
}

export interface GcsCounters {
  readonly requests: Readonly<Partial<Record<Operation, number>>>;
  /** Answers by HTTP status; those that never came are not in it. */
  readonly statuses: Readonly<Record<string, number>>;
  /** Requests with bytes of objects (`upload`, `piece`) that were under way at once. */
  readonly uploadsInFlight: number;
  readonly maxUploadsInFlight: number;
  /** TCP connections since the start. */
  readonly connections: number;
}

export class Counters {
  readonly #requests: Partial<Record<Operation, number>> = {};
  readonly #statuses: Record<string, number> = {};
  #uploads = 0;
  #maxUploads = 0;
  #connections = 0;

  connected(): void {
    this.#connections++;
  }

  began(operation: Operation): void {
    this.#requests[operation] = (this.#requests[operation] ?? 0) + 1;
    if (operation !== 'upload' && operation !== 'piece') return;
    this.#uploads++;
    this.#maxUploads = Math.max(this.#maxUploads, this.#uploads);
  }

  ended(operation: Operation): void {
    if (operation === 'upload' || operation === 'piece') this.#uploads--;
  }

  answered(status: number): void {
    this.#statuses[status] = (this.#statuses[status] ?? 0) + 1;
  }

  get(): GcsCounters {
    return {
      requests: { ...this.#requests },
      statuses: { ...this.#statuses },
      uploadsInFlight: this.#uploads,
      maxUploadsInFlight: this.#maxUploads,
      connections: this.#connections,
    };
  }
}
