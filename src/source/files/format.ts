import { UsageError } from '../../errors.ts';
import type { Cutter, LogFormat, Until } from '../source.ts';
import { AofScanner, insideBase, manifestOf, parseAofName } from './aof.ts';
import { type Layout, type LayoutOptions, layoutOf } from './layout.ts';
import { idText, type Place, parsePlace, placeOf } from './names.ts';

/** Files of a directory: cut to a place where a record ends, and Redis's increments to a time as well. */
export function filesFormat(options: LayoutOptions): LogFormat {
  const layout = layoutOf(options);
  const isAof = options.layout === 'redis-aof';
  return {
    cutter: (until) => (until.kind === 'time' ? timeCutter(until.ms, isAof) : new PlaceCutter(until, layout)),

    covers(id, target) {
      const [here, place] = [placeOf(id), placeOf(target)];
      if (!here || !place) return false;
      const order = layout.compare(here.segment, place.segment);
      return order > 0 || (order === 0 && here.offset >= place.offset);
    },

    parseId(text) {
      const { segment, offset } = parsePlace(text);
      return idText(segment, offset);
    },

    /** The manifest by which Redis finds the files. */
    extras(segments) {
      const manifest = isAof ? manifestOf(segments) : null;
      return manifest ? [manifest] : [];
    },
  };
}

/** Cuts at the last record's end at or before a place. */
class PlaceCutter implements Cutter {
  reached = false;
  readonly #target: Place | null;
  readonly #layout: Layout;
  #segment: string | null = null;
  #fed = 0;
  #scanner: ReturnType<Layout['scanner']> | null = null;
  #end: Place | null = null;

  constructor(until: Exclude<Until, { kind: 'time' }>, layout: Layout) {
    this.#target = until.kind === 'id' ? parsePlace(until.id) : null;
    this.#layout = layout;
  }

  get id(): string {
    return this.#end ? idText(this.#end.segment, this.#end.offset) : '';
  }

  /** The archive, or what lies before a gap, may end with the very byte that the place names. */
  get isAtEnd(): boolean {
    const [end, target] = [this.#end, this.#target];
    return end !== null && target !== null && end.segment === target.segment && end.offset === target.offset;
  }

  feed(segment: string, bytes: Uint8Array): number {
    if (this.reached) return 0;
    const target = this.#target;
    if (segment !== this.#segment) this.#begin(segment);
    if (target && this.#layout.compare(segment, target.segment) > 0) return this.#cut(0);
    const before = this.#fed;
    const wanted = target?.segment === segment ? Math.min(bytes.length, target.offset - before) : bytes.length;
    this.#scanner!.feed(bytes.subarray(0, wanted));
    this.#fed += wanted;
    if (wanted === bytes.length) {
      this.#end = { segment, offset: this.#fed };
      return wanted;
    }
    if (this.#layout.isComplete(segment)) throw insideBase(segment);
    // Where a record is cut by its pieces, the one before is the archive's affair: it stays.
    const kept = Math.max(0, this.#scanner!.boundary - before);
    this.#end = { segment, offset: before + kept };
    return this.#cut(kept);
  }

  #begin(segment: string): void {
    this.#segment = segment;
    this.#fed = 0;
    this.#scanner = this.#layout.scanner(segment);
  }

  #cut(kept: number): number {
    this.reached = true;
    return kept;
  }
}

function timeCutter(untilMs: number, isAof: boolean): Cutter {
  if (isAof) return new AofTimeCutter(untilMs);
  throw new UsageError('the files of this stream carry no times', 'give a place instead, as FILE:OFFSET, or "latest"');
}

/** Redis begins a file without a time where the second is that of the one before: so much of it tells that it writes none. */
const UNTIMED_BYTES = 64 << 20;
const UNTIMED_FILES = 3;

/** Cuts before the first command that is later than the time. */
class AofTimeCutter implements Cutter {
  reached = false;
  readonly #untilMs: number;
  #segment = '';
  #fed = 0;
  /** Null in a base file. */
  #scanner: AofScanner | null = null;
  #untimed = { bytes: 0, files: 0 };

  constructor(untilMs: number) {
    this.#untilMs = untilMs;
  }

  get id(): string {
    return idText(this.#segment, this.#fed);
  }

  feed(segment: string, bytes: Uint8Array): number {
    if (this.reached) return 0;
    if (segment !== this.#segment) this.#begin(segment);
    const before = this.#fed;
    this.#scanner?.feed(bytes);
    this.#fed += bytes.length;
    if (!this.#scanner?.stopped) {
      this.#demandTimes(bytes.length);
      return bytes.length;
    }
    const kept = Math.max(0, this.#scanner.boundary - before);
    this.#fed = before + kept;
    this.reached = true;
    return kept;
  }

  #begin(segment: string): void {
    this.#segment = segment;
    this.#fed = 0;
    const isIncrement = parseAofName(segment)?.kind === 'incr';
    this.#scanner = isIncrement ? new AofScanner({ untilMs: this.#untilMs }) : null;
    if (isIncrement) this.#untimed.files++;
  }

  #demandTimes(bytes: number): void {
    if (this.#scanner === null) return;
    this.#untimed.bytes += bytes;
    if (this.#scanner.ms !== null) this.#untimed = { bytes: Number.NEGATIVE_INFINITY, files: Number.NEGATIVE_INFINITY };
    if (this.#untimed.bytes < UNTIMED_BYTES && this.#untimed.files < UNTIMED_FILES) return;
    throw new UsageError(
      'the increments of this stream carry no times',
      'Redis writes them with "aof-timestamp-enabled yes"; without, give a place as FILE:OFFSET, or "latest"',
    );
  }
}
