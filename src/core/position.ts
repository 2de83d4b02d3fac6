import { z } from 'zod';

/**
 * A place in a stream. Only its source compares, locates and prints one; everything else carries it unread, but for the
 * continuity that the chain itself demands (`follows`).
 */
export interface Position {
  /** The server whose files are read: `mariadb-1` (server id), a PostgreSQL system id and timeline. */
  readonly origin: string;
  /** Which life of this segment's name: a fingerprint of its first bytes. */
  readonly incarnation: string;
  /** File name, without a directory. */
  readonly segment: string;
  /** Bytes from the segment's start. */
  readonly offset: number;
  /** The log ID in text, the same on every twin: GTID position, timeline/LSN, or `segment:offset`. */
  readonly id: string;
}

/** A position as it stands in headers, floors and cursors. */
export const positionSchema: z.ZodType<Position> = z.object({
  origin: z.string(),
  incarnation: z.string(),
  segment: z.string(),
  offset: z.int().nonnegative(),
  id: z.string(),
});

/** For people: `binlog.000003:4711 (0-1-52)`; the ID only where that tells more. */
export function positionText({ segment, offset, id }: Position): string {
  const place = `${segment}:${offset}`;
  return id === '' || id === place ? place : `${place} (${id})`;
}

export function samePlace(a: Position, b: Position): boolean {
  return a.origin === b.origin && a.incarnation === b.incarnation && a.segment === b.segment && a.offset === b.offset;
}

/** Whether bytes that start at `next` go on from `end`: the same place, or the start of another segment. */
export function follows(next: Position, end: Position): boolean {
  return samePlace(next, end) || (next.offset === 0 && next.segment !== end.segment && next.origin === end.origin);
}
