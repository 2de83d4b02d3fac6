import { UsageError } from '../../errors.ts';
import { eventType, HEADER_BYTES, TYPE, u32, u64 } from './events.ts';
import type { GtidState } from './gtid.ts';

/** Sequence numbers from `start` up to, not including, `end`. */
interface Interval {
  start: bigint;
  end: bigint;
}

const UUID_BYTES = 16;
const INTERVAL_BYTES = 16;
/** Offsets in the body of a GTID event without a tag. */
const GTID_BODY = { uuid: 1, sequence: 17 } as const;

/**
 * A MySQL GTID set: of each source, a server's UUID or since 8.3 one with a tag, the sequence numbers seen. In text
 * ordered by source: `3e11fa47-…:1-5:7,9c….:1-3:billing:1-2`.
 */
export class MysqlGtidState implements GtidState {
  readonly #seen: Map<string, Interval[]>;
  /** The GTID of the group that is under way: this runs for every transaction, so without objects. */
  readonly #uuid = Buffer.alloc(UUID_BYTES);
  #source = '';
  #isAnonymous = true;
  #low = 0;
  #high = 0;
  /** Sequence numbers of one source, each the one before plus 1, that are yet to be added to #seen. */
  readonly #run = { source: '', start: 0n, length: 0, low: 0, high: 0 };

  constructor(id = '') {
    this.#seen = parseMysqlGtids(id);
  }

  load(bytes: Uint8Array, at: number, end: number): void {
    if (eventType(bytes, at) !== TYPE.mysqlPreviousGtids) return;
    this.#seen.clear();
    this.#run.length = 0;
    readGtidSet(bytes.subarray(at + HEADER_BYTES, end), (source, { start, end: after }) => {
      this.#add(source, start, after);
    });
  }

  begin(bytes: Uint8Array, at: number, end: number): void {
    const type = eventType(bytes, at);
    this.#isAnonymous = type === TYPE.mysqlAnonymousGtid;
    if (type === TYPE.mysqlTaggedGtid) {
      const { uuid, tag, sequence } = readTaggedGtid(bytes.subarray(at + HEADER_BYTES, end));
      this.#uuid.fill(0);
      this.#source = sourceName(uuid, tag);
      this.#low = Number(sequence & 0xffffffffn);
      this.#high = Number(sequence >> 32n);
    } else if (!this.#isAnonymous) {
      const body = at + HEADER_BYTES;
      this.#takeUuid(bytes, body + GTID_BODY.uuid);
      this.#low = u32(bytes, body + GTID_BODY.sequence);
      this.#high = u32(bytes, body + GTID_BODY.sequence + 4);
    }
  }

  complete(): void {
    if (this.#isAnonymous) return;
    const run = this.#run;
    const goesOn =
      run.length > 0 && this.#high === run.high && this.#low === run.low + 1 && this.#source === run.source;
    if (!goesOn) {
      this.#addRun();
      run.source = this.#source;
      run.start = this.#begunSequence();
      run.high = this.#high;
    }
    run.low = this.#low;
    run.length++;
  }

  text(): string {
    this.#addRun();
    return textOf(this.#seen);
  }

  covers(other: GtidState): boolean {
    if (!(other instanceof MysqlGtidState)) return false;
    this.#addRun();
    other.#addRun();
    for (const [source, wanted] of other.#seen) {
      const seen = this.#seen.get(source) ?? [];
      const isSeen = ({ start, end }: Interval) => seen.some((within) => within.start <= start && within.end >= end);
      if (!wanted.every(isSeen)) return false;
    }
    return true;
  }

  coversBegun(other: GtidState): boolean {
    if (!(other instanceof MysqlGtidState) || other.#isAnonymous) return false;
    this.#addRun();
    const sequence = other.#begunSequence();
    return this.#seen.get(other.#source)?.some(({ start, end }) => start <= sequence && sequence < end) ?? false;
  }

  begun(): string {
    return this.#isAnonymous ? '' : `${this.#source}:${this.#begunSequence()}`;
  }

  clone(): MysqlGtidState {
    this.#addRun();
    const copy = new MysqlGtidState();
    for (const [source, intervals] of this.#seen) {
      copy.#seen.set(
        source,
        intervals.map((interval) => ({ ...interval })),
      );
    }
    return copy;
  }

  /** What was seen here and not there. */
  without(other: MysqlGtidState): MysqlGtidState {
    const rest = this.clone();
    other.#addRun();
    for (const [source, intervals] of rest.#seen) {
      const left = subtract(intervals, other.#seen.get(source) ?? []);
      if (left.length > 0) rest.#seen.set(source, left);
      else rest.#seen.delete(source);
    }
    return rest;
  }

  /** How many transactions were seen. */
  get count(): bigint {
    this.#addRun();
    return [...this.#seen.values()].flat().reduce((sum, { start, end }) => sum + end - start, 0n);
  }

  #begunSequence(): bigint {
    return (BigInt(this.#high) << 32n) | BigInt(this.#low);
  }

  #takeUuid(bytes: Uint8Array, at: number): void {
    const uuid = this.#uuid;
    let i = 0;
    while (i < UUID_BYTES && uuid[i] === bytes[at + i]) i++;
    if (i === UUID_BYTES) return;
    uuid.set(bytes.subarray(at, at + UUID_BYTES));
    this.#source = sourceName(uuid, '');
  }

  #addRun(): void {
    const { source, start, length } = this.#run;
    if (length > 0) this.#add(source, start, start + BigInt(length));
    this.#run.length = 0;
  }

  #add(source: string, start: bigint, end: bigint): void {
    const intervals = this.#seen.get(source);
    if (!intervals) this.#seen.set(source, [{ start, end }]);
    else addInterval(intervals, start, end);
  }
}

/** Keeps intervals ordered, apart from each other, and few: the common case only moves the last one's end. */
function addInterval(intervals: Interval[], start: bigint, end: bigint): void {
  const last = intervals.at(-1);
  if (last && last.end === start) {
    last.end = end;
    return;
  }
  const first = intervals.findIndex((interval) => interval.end >= start);
  if (first < 0) {
    intervals.push({ start, end });
    return;
  }
  const merged = { start, end };
  let after = first;
  for (; after < intervals.length && intervals[after]!.start <= end; after++) {
    const { start: otherStart, end: otherEnd } = intervals[after]!;
    if (otherStart < merged.start) merged.start = otherStart;
    if (otherEnd > merged.end) merged.end = otherEnd;
  }
  intervals.splice(first, after - first, merged);
}

/** What is left of ordered intervals without others. */
function subtract(intervals: readonly Interval[], others: readonly Interval[]): Interval[] {
  return others.reduce<Interval[]>(
    (left, { start, end }) =>
      left
        .flatMap((interval) => [endingBy(interval, start), startingAt(interval, end)])
        .filter((part) => part.start < part.end),
    [...intervals],
  );
}

const endingBy = (interval: Interval, limit: bigint): Interval =>
  interval.end <= limit ? interval : { start: interval.start, end: limit };

const startingAt = (interval: Interval, limit: bigint): Interval =>
  interval.start >= limit ? interval : { start: limit, end: interval.end };

function textOf(sets: Map<string, Interval[]>): string {
  let text = '';
  let previous = '';
  for (const source of [...sets.keys()].sort()) {
    const [uuid, tag] = source.split(':');
    text += uuid === previous ? `:${tag}` : `${text && ','}${source}`;
    for (const { start, end } of sets.get(source)!) text += end - start === 1n ? `:${start}` : `:${start}-${end - 1n}`;
    previous = uuid!;
  }
  return text;
}

const UUID_TEXT = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/;
const TAG_TEXT = /^[a-z_][a-z0-9_]{0,31}$/;
const INTERVAL_TEXT = /^([1-9]\d{0,18})(?:-([1-9]\d{0,18}))?$/;

function parseMysqlGtids(text: string): Map<string, Interval[]> {
  const sets = new Map<string, Interval[]>();
  const parts = text.toLowerCase().replaceAll(/\s/g, '').split(',');
  for (const part of text === '' ? [] : parts) {
    const [uuid, ...rest] = part.split(':');
    if (!UUID_TEXT.test(uuid!) || rest.length === 0) throw notAGtidSet(text);
    let source = uuid!;
    for (const piece of rest) {
      const match = INTERVAL_TEXT.exec(piece);
      if (match) {
        const intervals = sets.get(source) ?? [];
        addInterval(intervals, BigInt(match[1]!), BigInt(match[2] ?? match[1]!) + 1n);
        sets.set(source, intervals);
      } else if (TAG_TEXT.test(piece)) {
        source = `${uuid}:${piece}`;
      } else {
        throw notAGtidSet(text);
      }
    }
  }
  return sets;
}

const notAGtidSet = (text: string) =>
  new UsageError(
    `"${text}" is not a MySQL GTID set`,
    'write it as @@gtid_executed prints it: 3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5',
  );

function sourceName(uuid: Uint8Array, tag: string): string {
  const hex = Buffer.from(uuid).toString('hex');
  const text = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
  return tag === '' ? text : `${text}:${tag}`;
}

/** The body of Previous_gtids. The count's highest byte says whether sources carry tags; the count is then in the middle. */
function readGtidSet(body: Uint8Array, found: (source: string, interval: Interval) => void): void {
  const packed = u64(body, 0);
  const isTagged = packed >> 56n === 1n;
  const count = isTagged ? (packed >> 8n) & 0xffffffffffffn : packed & 0xffffffffffffffn;
  let at = 8;
  for (let i = 0n; i < count; i++) {
    const uuid = body.subarray(at, at + UUID_BYTES);
    at += UUID_BYTES;
    let tag = '';
    if (isTagged) [tag, at] = readText(body, at);
    const intervals = Number(u64(body, at));
    at += 8;
    for (let j = 0; j < intervals; j++, at += INTERVAL_BYTES) {
      found(sourceName(uuid, tag), { start: u64(body, at), end: u64(body, at + 8) });
    }
  }
}

/** The fields of a tagged GTID event, numbered in the order in which MySQL's serialization writes them. */
const TAGGED_FIELD = { flags: 0, uuid: 1, sequence: 2, tag: 3 } as const;

/**
 * The body of a tagged GTID event: a message of MySQL's serialization library. Format version, length, last field that must
 * be understood, then fields, each after its number; every integer, each byte of the UUID too, has a variable length.
 */
function readTaggedGtid(body: Uint8Array): { uuid: Uint8Array; tag: string; sequence: bigint } {
  const uuid = new Uint8Array(UUID_BYTES);
  let tag = '';
  let sequence = 0n;
  let at = 0;
  const next = () => {
    const [value, after] = readInteger(body, at);
    at = after;
    return value;
  };
  next();
  next();
  next();
  for (let field = -1; field < TAGGED_FIELD.tag && at < body.length; ) {
    field = Number(next());
    if (field === TAGGED_FIELD.flags) next();
    else if (field === TAGGED_FIELD.uuid) for (let i = 0; i < UUID_BYTES; i++) uuid[i] = Number(next());
    // Signed: the lowest bit is the sign, and sequence numbers are positive.
    else if (field === TAGGED_FIELD.sequence) sequence = next() >> 1n;
    else if (field === TAGGED_FIELD.tag) [tag, at] = readText(body, at);
  }
  return { uuid, tag, sequence };
}

function readText(bytes: Uint8Array, at: number): [text: string, after: number] {
  const [length, start] = readInteger(bytes, at);
  const end = start + Number(length);
  return [Buffer.from(bytes.subarray(start, end)).toString('latin1'), end];
}

/** As many further bytes as the first has trailing ones, the value above those and a zero (nine bytes: all 64 bits). */
function readInteger(bytes: Uint8Array, at: number): [value: bigint, after: number] {
  const first = bytes[at] ?? 0;
  let further = 0;
  while (further < 8 && (first >> further) & 1) further++;
  let packed = 0n;
  for (let i = further; i >= 0; i--) packed = (packed << 8n) | BigInt(bytes[at + i] ?? 0);
  const value = further === 8 ? packed >> 8n : packed >> BigInt(further + 1);
  return [value, at + further + 1];
}
