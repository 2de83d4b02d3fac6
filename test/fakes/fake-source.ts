import { type Position, samePlace } from '../../src/core/position.ts';
import { witnessDigest } from '../../src/core/witness.ts';
import { abortReason, Discontinuity } from '../../src/errors.ts';
import type { Head, Located, LogSlice, LogSource, Witness } from '../../src/source/source.ts';
import type { FakeLog, FakeSegment } from './fake-log.ts';

const MAX_SLICE_BYTES = 1 << 20;

/** One twin's view of a fake log. A small `maxSliceBytes` makes small transactions span slices. */
export function openFakeSource(
  log: FakeLog,
  { maxSliceBytes = MAX_SLICE_BYTES }: { maxSliceBytes?: number } = {},
): LogSource {
  const find = (position: Position) =>
    log.segments.find(
      ({ name, incarnation }) =>
        position.origin === log.origin && position.segment === name && position.incarnation === incarnation,
    );

  function position(segment: FakeSegment, offset: number): Position {
    const id = segment.boundaries.findLast((boundary) => boundary.offset <= offset)?.id ?? segment.startId;
    return { origin: log.origin, incarnation: segment.incarnation, segment: segment.name, offset, id };
  }

  const oldest = () => (log.segments[0] ? position(log.segments[0], 0) : null);

  function slice(segment: FakeSegment, offset: number): LogSlice | null {
    const room = offset + maxSliceBytes;
    const within = segment.boundaries.filter((boundary) => boundary.offset > offset && boundary.offset <= room);
    const pending = Math.min(segment.bytes.length, room);
    const end = within.at(-1)?.offset ?? (pending === room || segment.next ? pending : offset);
    if (end === offset) return null;
    const touched = segment.boundaries.filter((boundary) => boundary.offset > offset);
    return {
      from: position(segment, offset),
      to: position(segment, end),
      bytes: segment.bytes.subarray(offset, end),
      boundary: within.length > 0,
      endsSegment: segment.next !== null && end === segment.bytes.length,
      firstEventMs: touched[0]?.ms ?? null,
      lastEventMs: (within.at(-1) ?? touched[0])?.ms ?? null,
    };
  }

  return {
    async identity() {
      return { type: 'fake', name: log.segments.length > 0 ? log.origin : null };
    },

    locate: async (head) => locate(log, find, oldest(), head),

    async *read(from, signal) {
      let at: FakeSegment | null | undefined = from ? find(from) : undefined;
      if (from && !at) throw new Discontinuity(`${from.segment} is not in the log any more`);
      while (!from && !at) {
        if (signal.aborted) throw abortReason(signal);
        at = log.segments[0];
        if (!at) await log.changed(signal);
      }
      let segment = at!;
      let offset = from?.offset ?? 0;
      for (;;) {
        if (signal.aborted) throw abortReason(signal);
        if (offset > segment.bytes.length) throw new Discontinuity(`${segment.name} is shorter than what was read`);
        const next = slice(segment, offset);
        if (next) {
          offset = next.to.offset;
          yield next;
        } else if (segment.next) {
          segment = segment.next;
          offset = 0;
        } else if (log.segments.at(-1) !== segment) {
          throw new Discontinuity(`${segment.name} is not the log's end any more`);
        } else {
          await log.changed(signal);
        }
      }
    },

    async end() {
      const last = log.segments.at(-1);
      return last ? position(last, last.bytes.length) : null;
    },

    async backlog(from) {
      const segment = from ? find(from) : log.segments[0];
      let bytes = 0;
      let oldestMs: number | null = null;
      let offset = from?.offset ?? 0;
      for (let at: FakeSegment | null = segment ?? null; at; at = at.next) {
        bytes += Math.max(0, at.bytes.length - offset);
        oldestMs ??= at.boundaries.find((boundary) => boundary.offset > offset)?.ms ?? null;
        offset = 0;
      }
      return { bytes, oldestMs };
    },

    async acknowledge() {},
    async inspect() {
      return [{ level: 'ok', message: 'a log in memory' }];
    },
    async close() {},
  };
}

async function locate(
  log: FakeLog,
  find: (position: Position) => FakeSegment | undefined,
  oldest: Position | null,
  head: Head | null,
): Promise<Located> {
  const answer = (result: Located['result'], at: Position | null, reason: string, allowed = true): Located => ({
    result,
    at,
    allowed,
    reason,
    evidence: { segments: log.segments.length },
  });
  const matches = (chunk: Witness) => {
    const { from, to, length } = chunk;
    const bytes = find(to)?.bytes;
    return (
      bytes !== undefined &&
      bytes.length >= to.offset &&
      chunk.matches(witnessDigest(bytes.subarray(from.offset, from.offset + length)))
    );
  };

  const position = head?.position ?? null;
  if (!head || !position) return answer('start', oldest, 'nothing was shipped yet');
  if (!oldest) return answer('behind', null, 'the log is empty', false);

  // What was shipped beyond a truncation's opening is dead: the chain's live chunks end where the head is.
  let live = position.offset === 0;
  let newest = true;
  let openTransaction = false;
  if (live && find(position)) return answer('resume', position, 'the same segment');
  for await (const chunk of head.history()) {
    live ||= samePlace(chunk.to, position);
    if (!live) continue;
    if (matches(chunk)) {
      return newest && position.offset > 0
        ? answer('resume', position, 'the same bytes')
        : answer('truncate', chunk.to, `the log is the archive's up to ${chunk.to.id}`);
    }
    if (newest) openTransaction = chunk.openTransaction;
    newest = false;
  }
  const first = log.segments[0]!;
  const number = Number(position.segment.split('.')[1]);
  if (first.number === number + 1 && first.startId === position.id && !openTransaction) {
    return answer('resume', oldest, 'the direct successor of what was shipped');
  }
  if (first.number === 1 && first.startId === '') return answer('reset', oldest, 'the log was started again');
  return answer('gap', oldest, `${first.number - number} segments are gone`, false);
}
