/** What a PostgreSQL server says of itself, all of one moment. */
export interface ServerState {
  /** `pg_control_system().system_identifier`, decimal. */
  readonly systemId: string;
  readonly walSegmentBytes: number;
  /** Since when it runs, as a text to compare: started again, it may be another one in the same directory (pg_rewind). */
  readonly life: string;
  readonly isInRecovery: boolean;
  /** The timeline whose WAL it writes, or on a standby receives or replays. */
  readonly timeline: number;
  /** Up to where that timeline's WAL is on its disk for sure. It never goes back while the timeline stays. */
  readonly flushed: bigint;
  /** On a standby: up to where it was replayed; on a primary null. */
  readonly replayed: bigint | null;
  /** On a standby: whether a walreceiver streams now. */
  readonly isStreaming: boolean;
}

/** A server as the source asks it; one connection, made when needed, every question bounded in time. */
export interface Server {
  /** Asks now. Throws ShipmateError SERVER_UNREACHABLE where it does not answer, BAD_SERVER where it is not fit. */
  ask(): Promise<ServerState>;
  /** The last answer; null before the first one. */
  readonly known: ServerState | null;
  close(): Promise<void>;
}

/** The physical replication slot by which a server keeps the WAL that is not in the archive yet. */
export interface Slot {
  /** Makes it where it is missing, reserving at once, and frees the WAL before `upTo`, which is in the archive. Repeats are cheap. */
  advance(upTo: bigint): Promise<void>;
  /** Makes it where it is missing, reserving from the oldest WAL that the server still has. */
  hold(): Promise<void>;
}
