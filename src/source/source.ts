import type { Result } from '../core/header.ts';
import type { Position } from '../core/position.ts';

/** What tells one database from another when an archive is joined; compared by the source that made it. */
export interface SourceIdentity {
  /** `mariadb`, `mysql`, `postgres`, `files`. */
  readonly type: string;
  /** What is the same on every twin's server, or null while the log is empty: for people and for `join`. */
  readonly name: string | null;
}

/** The range of a shipped chunk, and what proves that the same bytes are at the source. */
export interface Witness {
  readonly from: Position;
  readonly to: Position;
  readonly length: number;
  /** What the archive keeps of its bytes: tells two witnesses of one archive apart, and nothing else. */
  readonly mark: string;
  /**
   * Whether its bytes have this digest (`WitnessDigest`; the in-use flag and the like normalised as they were when
   * shipped); null, where the source has none, never is.
   */
  matches(digest: string | null): boolean;
  readonly openTransaction: boolean;
}

/** The archive's end as a source needs it to find its place. */
export interface Head {
  /** Where the archive ends; null while nothing was shipped. */
  readonly position: Position | null;
  /** The last chunk; null while nothing was shipped. */
  readonly witness: Witness | null;
  /** Chunks of the chain that count, newest first, `witness` included: for finding the last common point. Reads the store. */
  history(): AsyncIterable<Witness>;
  /** Ends of logs that the archive has left by a fork, newest first: never to be gone back to by itself. Reads the store. */
  left(): AsyncIterable<Position>;
  /** Where the log last began anew (RESET MASTER): its IDs may have named other transactions before; null: never. Reads the store. */
  anew(): Promise<Position | null>;
  /** The plain bytes of a chunk that `history` gave, proven by its digest; null: it is encrypted. Reads the store. */
  bytes(witness: Witness): Promise<Uint8Array | null>;
}

/** How this twin could go on from a head (protocol rule 14). */
export interface Located {
  readonly result: Result;
  /** Where the next term would start; for `gap` and `fork` where it would start if an operator accepts; null: no byte yet. */
  readonly at: Position | null;
  /** For `fork` to another server's log: where what was shipped stops to count, in the log that is left. */
  readonly common?: Position;
  /** Whether a take-over may go on without an operator. */
  readonly allowed: boolean;
  /** One line for status, alerts and the opening: why this result. */
  readonly reason: string;
  readonly evidence: Readonly<Record<string, unknown>>;
}

/** A run of log bytes in one segment. */
export interface LogSlice {
  readonly from: Position;
  readonly to: Position;
  /** Valid only until the next slice is asked for; never empty. */
  readonly bytes: Uint8Array;
  /** Whether `to` lies on a transaction boundary. */
  readonly boundary: boolean;
  /** Whether the segment is known to end at `to`. */
  readonly endsSegment: boolean;
  /** Milliseconds since 1970; null where the bytes carry no time. */
  readonly firstEventMs: number | null;
  readonly lastEventMs: number | null;
}

/** Distance from a position to this twin's own end of the log. */
export interface Backlog {
  readonly bytes: number;
  /** When the oldest byte beyond the position was written, milliseconds since 1970; null when there is none. */
  readonly oldestMs: number | null;
}

/** How much of its log a database keeps, at the most, while that is not shipped; null: without a limit, or it does not tell. */
export interface Retention {
  readonly bytes: number | null;
  readonly seconds: number | null;
}

export interface Finding {
  readonly level: 'ok' | 'warning' | 'error';
  readonly message: string;
  readonly hint?: string;
}

/** A database's log, as one twin sees it. */
export interface LogSource {
  identity(): Promise<SourceIdentity>;
  /** The eight results of protocol rule 14, and `start` for a null head. Never changes anything. */
  locate(head: Head | null): Promise<Located>;
  /**
   * Durable bytes (rule 7) from a position on, waiting for more at the end. Ends only by the signal (throws its reason)
   * or an error: Discontinuity where the bytes no longer go on, another ShipmateError for bad input. Slices are at most
   * 1 MiB; a slice without `boundary` appears only where a transaction is larger than that. `null` reads from the oldest
   * byte.
   */
  read(from: Position | null, signal: AbortSignal): AsyncIterable<LogSlice>;
  /** The newest durable byte here; null while the log is empty. */
  end(): Promise<Position | null>;
  /** How far `from` (null: the oldest byte) is behind the log's end; cheap enough for twice a second. */
  backlog(from: Position | null): Promise<Backlog>;
  /** Everything up to here is durable in the archive, and saved or found there; the database may let go of it. */
  acknowledge(upTo: Position): Promise<void>;
  /** Disk that segments take which the database has purged, but whose descriptors are held for what is not shipped; bytes. */
  heldBytes?(): number;
  /** What an operator should know or mend: settings, rights, risks; `from`: where this twin would go on, if it is known. */
  inspect(from?: Position): Promise<Finding[]>;
  /** What the database is set to remove of its log, shipped or not; left out where nothing but a person removes it. */
  retention?(): Promise<Retention>;
  close(): Promise<void>;
}

/** How `restore` cuts and indexes a database's segments; no server needed. */
export interface LogFormat {
  /**
   * A scanner for one origin run's bytes, up to where the target is passed. `before`: all that the log had before the run,
   * which another server's file need not list. `next`: the first ID of the run that goes on from this one.
   */
  cutter(until: Until, before?: string, next?: string | null): Cutter;
  /**
   * Whether a log that stands at `id` has all that `target` names: what spares `restore` the segments before it. A
   * format without it is scanned from the run's start.
   */
  covers?(id: string, target: string): boolean;
  /** The ID that names all that either of them names. */
  union?(a: string, b: string): string;
  /** Parses an ID given by an operator; throws UsageError. */
  parseId(text: string): string;
  /**
   * What makes a file of the bytes from inside a segment on, by an opening's evidence: for binlogs the magic number and the
   * file's first events. Null where the evidence does not tell.
   */
  fileStart?(evidence: Readonly<Record<string, unknown>>): Uint8Array | null;
  /** So many segments of a run are kept behind the one in which the target was found, and that one whole; else it is cut. */
  readonly segmentsBeyond?: number;
  /** A file of the same run without which the segment is of no use, for WAL its timeline's history; itself, if it is such. */
  companion?(segment: string): string | null;
  /** The database asks for its files by name alone: those of several runs must all be found in one directory. */
  readonly oneDirectory?: boolean;
  /** Files to write beside the segments of one run: for binlogs the index. */
  extras(segments: readonly string[]): { name: string; content: string }[];
  /**
   * How long a file must be whose first bytes are these; what is missing at its end is zeros: a WAL segment is always whole.
   * Null: as long as what was shipped of it.
   */
  wholeBytes?(start: Uint8Array): number | null;
  /** A file for the top of the restored directory that tells the database how to recover from it. */
  guide?(restored: Restored): { name: string; content: string };
  /** How restored files are applied to a server; left out where the database does that by itself, or nothing can. */
  readonly replay?: Replay;
}

/** A restored directory. */
export interface Restored {
  readonly stream: string;
  /** Absolute. */
  readonly directory: string;
  /** Origin runs in order: their directory below that one (empty: itself), and their files. */
  readonly runs: readonly {
    readonly directory: string;
    readonly origin: string;
    readonly segments: readonly string[];
  }[];
  /** `latest` where all of it is wanted, or where nothing in it lies beyond what was asked for. */
  readonly until: Until;
}

/** The restored files of one origin run. */
export interface ReplayRun {
  /** Where they lie. */
  readonly directory: string;
  readonly files: readonly { readonly name: string; readonly bytes: number }[];
  /** What is not to be applied again: all that this ID names; empty: nothing. */
  readonly after: string;
}

/** The server that log is applied to; what is left out is for the database's own client to know. */
export interface ReplayTarget {
  readonly socket?: string | undefined;
  readonly user?: string | undefined;
}

/** Applies log with the database's own programs. */
export interface Replay {
  /** The same as `apply`, for a shell. */
  command(run: ReplayRun, target: ReplayTarget): string;
  /** What a server has: by its own log, and by what it replicated or was told to have. Throws where it can't tell. */
  applied(target: ReplayTarget): Promise<{ readonly log: string; readonly replicated: string }>;
  /** Throws at the first error: what was applied by then stays, and `applied` tells it. `onProgress`: bytes of the files. */
  apply(run: ReplayRun, target: ReplayTarget, onProgress: (bytes: number) => void): Promise<void>;
}

/** Stateful: it is fed the bytes in order, from the start of any of the run's segments on. */
export interface Cutter {
  /**
   * Returns how many of the given bytes belong to the restored range; fewer than given (or 0) once the target is passed:
   * everything after is beyond it.
   */
  feed(segment: string, bytes: Uint8Array): number;
  /** Whether the target was found: nothing that comes later belongs to the range. */
  readonly reached: boolean;
  /** Not reached: whether all that the target names was fed, and only what comes after it is missing. */
  readonly isAtEnd?: boolean;
  /** The log's ID after the last transaction that belongs to the range; undefined where the format does not tell. */
  readonly id?: string;
  /** When that was, milliseconds since 1970; null where none was seen, undefined where the format does not tell. */
  readonly timeMs?: number | null;
}

export type Until =
  | { readonly kind: 'latest' }
  | { readonly kind: 'time'; readonly ms: number }
  | { readonly kind: 'id'; readonly id: string };

/** Files that a database asks for by name alone when it recovers, one after the other: WAL. */
export interface FilesByName {
  /** `segment` and `history` are files of the log, `never` none that an archive of it holds; null: no such name. */
  kindOf(name: string): 'segment' | 'history' | 'never' | null;
  /** Whether nothing of the file lies before the place; of a file of an older timeline that can't be told so. */
  isBehind(name: string, place: Position): boolean;
  /** How long each segment's file is, as a place in one tells; null where it does not. */
  segmentBytesAt(place: Position): number | null;
  /** The same by the file's first bytes; null where they are not such. */
  segmentBytesIn(start: Uint8Array): number | null;
  /** The segment in which the byte after an ID lies, and how far from its start. */
  placeAt(id: string, segmentBytes: number): { readonly segment: string; readonly offset: number };
  /** The IDs at a segment's ends. */
  span(segment: string, segmentBytes: number): { readonly from: string; readonly to: string };
  /** The segment that follows, if its timeline goes on. */
  next(segment: string, segmentBytes: number): string;
  /** Whether a log that stands at `id` has all that `target` names. */
  covers(id: string, target: string): boolean;
  /** Whether the ID lies further on than the other, whatever their timelines. */
  isFurther(id: string, than: string): boolean;
  /** The ID so many bytes further on. */
  further(id: string, bytes: number): string;
  /** The history file of the place's timeline; it begins with those of all timelines before. Null: it has none. */
  historyAt(place: Position): string | null;
  /** Where the segment's timeline was left, by a descendant's history file; null: it is none. Throws for what is no such file. */
  leftAt(segment: string, history: Uint8Array): string | null;
}
