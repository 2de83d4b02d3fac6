/** Finds where records end. It is fed a file's bytes in order. */
export interface Scanner {
  feed(bytes: Uint8Array): void;
  /** The end of the last whole record, in bytes from where the scanner began; 0: none yet. */
  readonly boundary: number;
  /** The time that the records before the boundary carry, milliseconds since 1970; null: none. */
  readonly ms: number | null;
  /** Whether it may begin inside a record. */
  readonly mayBeginInside: boolean;
}

/** Every byte is a record. */
export class ByteScanner implements Scanner {
  boundary = 0;
  readonly ms = null;
  readonly mayBeginInside = true;

  feed(bytes: Uint8Array): void {
    this.boundary += bytes.length;
  }
}

const NEWLINE = 0x0a;

/** A record is a line. */
export class LineScanner implements Scanner {
  boundary = 0;
  readonly ms = null;
  readonly mayBeginInside = true;
  #fed = 0;

  feed(bytes: Uint8Array): void {
    const last = bytes.lastIndexOf(NEWLINE);
    if (last >= 0) this.boundary = this.#fed + last + 1;
    this.#fed += bytes.length;
  }
}

/** A file that is of use only as a whole. `ms`: the time for which it stands, once its first bytes tell. */
export class WholeScanner implements Scanner {
  readonly boundary = 0;
  readonly mayBeginInside = true;
  ms: number | null = null;
  readonly #timeOf: (start: Uint8Array) => number | null;
  #started = false;

  constructor(timeOf: (start: Uint8Array) => number | null = () => null) {
    this.#timeOf = timeOf;
  }

  feed(bytes: Uint8Array): void {
    if (!this.#started) this.ms = this.#timeOf(bytes);
    this.#started = true;
  }
}
