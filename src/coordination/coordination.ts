import type { Place } from '../core/keys.ts';
import type { Override } from '../core/limits.ts';
import type { Position } from '../core/position.ts';
import type { CopyStatus } from '../core/status.ts';

/** Up to where the archive is durable. A hint: whoever uses it checks it against the store. */
export interface Cursor {
  readonly archive: string;
  readonly stream: string;
  readonly term: number;
  readonly slot: number;
  /** SHA-256 of the header at that place. */
  readonly digest: string;
  readonly position: Position | null;
  /** Up to which object as many stores as the plan's `ack` asks for hold the chain; absent: it asks for the primary alone. */
  readonly acknowledged?: Place | null;
  /** Wall clock of the save, RFC 3339. */
  readonly time: string;
  /** Of the chain that the place is in: each promotion begins another store's; absent: 0. */
  readonly generation?: number;
}

export interface Elector {
  /** Waits to be elected. Aborting leaves the queue at once (the promise rejects with the signal's reason). */
  campaign(signal: AbortSignal): Promise<Leadership>;
}

/** One election won. */
export interface Leadership {
  /** Aborts on proof that the leader key is gone (reason: Deposed), and with `onEtcdLoss: stop` when the lease runs out. */
  readonly signal: AbortSignal;
  /** Create revision of the leader key. */
  readonly revision: bigint;
  /** Whether the lease, measured from before the last good keep-alive was sent, still runs. Never waits. */
  confirmed(): boolean;
  /** Milliseconds until the lease runs out by that clock; 0 or less when it has. */
  remainingMs(): number;
  /** Gives the stream up now: the next twin in the queue is elected. Never throws; safe to repeat. */
  resign(): Promise<void>;
}

/** What the twins tell each other about where the archive ends. */
export interface CursorBoard {
  load(stream: string): Promise<Cursor | null>;
  /** One transaction that also compares the leader key's create revision; throws Deposed when that fails. */
  save(cursor: Cursor, by: Leadership): Promise<void>;
  /** The present cursor, if any, and every later one (intermediate ones may be skipped), until the signal; reconnects by itself. */
  watch(stream: string, signal: AbortSignal): AsyncIterable<Cursor>;
  /** Takes the cursor away: from now on the store alone tells where the archive ends. For an operator's `adopt`. */
  forget(stream: string): Promise<void>;
}

/** An archive id as remembered; `proposed` until its stream.json was seen or made. */
export interface RememberedArchive {
  readonly id: string;
  readonly state: 'proposed' | 'created';
}

/** What a promotion made the primary, whatever the config says (protocol rule 19). */
export interface Promotion {
  readonly archive: string;
  /** From 1 on. */
  readonly generation: number;
  /** Its name in the config. */
  readonly store: string;
}

/** What is remembered beside the store: the archive ids (protocol rule 1), and which store holds the newest generation. */
export interface ArchiveMemory {
  load(stream: string): Promise<RememberedArchive | null>;
  /** Remembers `id` as proposed if nothing is remembered; returns what is remembered then. Races have one winner. */
  propose(stream: string, id: string): Promise<RememberedArchive>;
  /** Remembers `id` as created, whatever was there. */
  confirm(stream: string, id: string): Promise<void>;
  /** What keys the witnesses of the stream's encrypted chunks, in hex; null: nothing is remembered. */
  secret(stream: string): Promise<string | null>;
  /** Remembers the secret if none is remembered; returns what is remembered then. Races have one winner. */
  keepSecret(stream: string, offered: string): Promise<string>;
  /** The promotion that stands; null: the config's primary is the primary. */
  generation(stream: string): Promise<Promotion | null>;
  /**
   * Remembers the promotion, unless one of the same archive is remembered that is of its generation or a higher one;
   * returns what is remembered then. Races have one winner.
   */
  raise(stream: string, promotion: Promotion): Promise<Promotion>;
}

export type Role = 'starting' | 'standby' | 'taking-over' | 'master' | 'leaving' | 'stopped';

export interface TwinStream {
  readonly name: string;
  readonly role: Role;
  /** Whether this twin could take over (or is master) now. */
  readonly ready: boolean;
  /** Why, or why not: the result of `locate` and its reason. */
  readonly reason: string;
  readonly lagBytes: number | null;
  readonly lagSeconds: number | null;
  /** Of a master: how the plan's copies stand. */
  readonly stores?: readonly CopyStatus[];
  /** Digest of the config that must agree between twins of one generation. */
  readonly config: string;
  /** Store generation of the archive that it has open; absent: 0, or none is open. */
  readonly generation?: number;
}

/** What a daemon publishes under its lease. */
export interface Twin {
  readonly node: string;
  readonly version: string;
  /** Newest archive format that it reads. */
  readonly format: number;
  readonly time: string;
  readonly streams: readonly TwinStream[];
  /** Absent where an older version tells nothing of it. */
  readonly bandwidth?: TwinBandwidth;
}

/** Rates in bytes a second. */
export interface TwinBandwidth {
  /** What counts now; null: nothing is limited. */
  readonly link: number | null;
  readonly classes: readonly {
    /** `shipping`, `slow`, … */
    readonly name: string;
    /** Null: no rate of its own. */
    readonly guaranteed: number | null;
    /** What it was given lately. */
    readonly measured: number;
  }[];
  /** Overrides that can't be honoured here now, and so have no effect. */
  readonly refused: readonly { readonly id: string; readonly reason: string }[];
}

/** What operators changed of the bandwidth limits, for a time. Who reads decides which of it counts when. */
export interface LimitsBoard {
  list(): Promise<Override[]>;
  add(override: Override): Promise<void>;
  /** Absent is success. */
  remove(ids: readonly string[]): Promise<void>;
  /** All that is there now, and again whenever that has changed, until the signal; reconnects by itself. */
  watch(signal: AbortSignal): AsyncIterable<readonly Override[]>;
}

export interface TwinBoard {
  /** Under the node's lease; gone when the daemon is. Throws NODE_NAME_TAKEN if another live daemon has this node's name. */
  publish(twin: Twin): Promise<void>;
  read(): Promise<Twin[]>;
}

/** An operator's decision, carried to the daemons. */
export interface OperatorRequest {
  readonly kind: 'handover' | 'accept-gap' | 'accept-fork';
  /** Handover: the node that should take over; absent: any. */
  readonly to?: string;
  /** Accept: digest of the head that the operator saw, so that a later gap is not accepted with it. */
  readonly head?: string;
  readonly by: string;
  readonly time: string;
}

export interface Answer {
  readonly ok: boolean;
  readonly message: string;
}

export interface PendingRequest {
  readonly key: string;
  readonly request: OperatorRequest;
}

export interface RequestBoard {
  /** Places a request and waits for its answer, at most `timeoutMs`; null: nobody answered (the request is withdrawn). */
  ask(stream: string, request: OperatorRequest, timeoutMs: number): Promise<Answer | null>;
  /** Requests that are pending now and those to come, until the signal. */
  watch(stream: string, signal: AbortSignal): AsyncIterable<PendingRequest>;
  answer(pending: PendingRequest, answer: Answer): Promise<void>;
}

export interface OverviewStream {
  readonly name: string;
  readonly master: string | null;
  /** Null as well where it is of a generation that a promotion ended. */
  readonly cursor: Cursor | null;
  /** Absent: none stands. */
  readonly promotion?: Promotion;
}

/** One consistent look, for `status`: costs two or three reads. */
export interface Overview {
  readonly streams: readonly OverviewStream[];
  readonly twins: readonly Twin[];
}

export interface Coordination {
  readonly kind: 'etcd' | 'solo';
  readonly cursors: CursorBoard;
  readonly archives: ArchiveMemory;
  readonly twins: TwinBoard;
  readonly requests: RequestBoard;
  readonly limits: LimitsBoard;
  elector(stream: string): Elector;
  overview(): Promise<Overview>;
  /** For /readyz and metrics; never waits. */
  health(): { reachable: boolean; leaseRemainingMs: number | null };
  /** Certificates that it is configured with, by what they are (`ca`, `cert`), to when they expire, milliseconds since 1970. */
  certificates(): Promise<ReadonlyMap<string, number>>;
  /** Revokes the lease: leader keys and the node key go at once. */
  close(): Promise<void>;
}
