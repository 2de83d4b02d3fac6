import { countValid } from './checksums.ts';
import { eventLength, eventType, HEADER_BYTES, typeName } from './events.ts';

/** Why bytes can't be an event. */
export interface Fault {
  /** Where in the buffer it starts. */
  readonly at: number;
  readonly what: string;
}

/** The whole, valid events that a stretch of bytes begins with. */
export interface Framed {
  /** Where the last of them ends. */
  readonly end: number;
  /** What follows them is no event at all; null: it may be the start of one. */
  readonly fault: Fault | null;
}

/** Finds events by their lengths and checks their checksums. Reuses its memory: a framer is for one reader. */
export class Framer {
  /** `ends[i]`: where event i of the last `frame` ends. */
  readonly ends: Uint32Array;
  /** How many of those there are. */
  count = 0;

  constructor(maxBytes: number) {
    this.ends = new Uint32Array(Math.ceil(maxBytes / HEADER_BYTES));
  }

  /** Frames bytes[start, end); `start` is where an event starts. */
  frame(bytes: Buffer, start: number, end: number, { checksums }: { checksums: boolean }): Framed {
    let at = start;
    let fault: Fault | null = null;
    this.count = 0;
    while (end - at >= HEADER_BYTES) {
      const length = eventLength(bytes, at);
      if (length < HEADER_BYTES) {
        fault = { at, what: `an event can't be ${length} bytes long` };
        break;
      }
      if (length > end - at) break;
      at += length;
      this.ends[this.count++] = at;
    }
    if (checksums) {
      const valid = countValid(bytes, start, this.ends, this.count);
      if (valid < this.count) {
        this.count = valid;
        at = valid === 0 ? start : this.ends[valid - 1]!;
        fault = { at, what: `the checksum of ${typeName(eventType(bytes, at))} is wrong` };
      }
    }
    return { end: at, fault };
  }
}
