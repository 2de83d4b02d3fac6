import { UsageError } from '../../src/errors.ts';
import type { Cutter, LogFormat, Until } from '../../src/source/source.ts';

const FIRST_MS = Date.UTC(2026, 0, 1);
const ID = /^0-1-(\d+)$/;
/** What each write of a fake log begins with; longer ones repeat it. */
const LINE = /log\.\d{6} life\d+-\d+ (?:0-1-(\d+))? write (\d+)\n/g;

const numberOf = (id: string) => Number(ID.exec(id)?.[1] ?? 0);

/** When a fake log's write happened. */
export const writeMs = (write: number) => FIRST_MS + write * 1000;

/** Reads what a fake log writes, as long as each write is long enough for its line (40 bytes are). */
export function fakeFormat({ covers = true } = {}): LogFormat {
  return {
    cutter: (until) => new FakeCutter(until),
    parseId(text) {
      if (ID.test(text)) return text;
      throw new UsageError(`"${text}" is not an ID`, 'write it like 0-1-52');
    },
    ...(covers && { covers: (id: string, target: string) => numberOf(id) >= numberOf(target) }),
    extras: (segments) => [{ name: 'log.index', content: segments.map((name) => `./${name}\n`).join('') }],
  };
}

/** Cuts before the first write that is beyond the target. Transactions are taken to end with the bytes that are fed. */
class FakeCutter implements Cutter {
  readonly #until: Until;
  #reached = false;
  #carried = '';
  #id = '';

  constructor(until: Until) {
    this.#until = until;
  }

  get reached(): boolean {
    return this.#reached;
  }

  get id(): string {
    return this.#id;
  }

  feed(_segment: string, bytes: Uint8Array): number {
    if (this.#reached) return 0;
    const text = this.#carried + Buffer.from(bytes).toString('latin1');
    for (const { 1: transaction = '', 2: write = '', index } of text.matchAll(LINE)) {
      if (this.#isBeyond(Number(transaction), writeMs(Number(write)))) {
        this.#reached = true;
        return index - this.#carried.length;
      }
      this.#id = transaction === '' ? '' : `0-1-${transaction}`;
    }
    this.#reached = this.#until.kind === 'id' && numberOf(this.#id) >= numberOf(this.#until.id);
    this.#carried = text.slice(text.lastIndexOf('\n') + 1).slice(-100);
    return bytes.length;
  }

  #isBeyond(transaction: number, ms: number): boolean {
    const until = this.#until;
    if (until.kind === 'id') return transaction > numberOf(until.id);
    return until.kind === 'time' && ms > until.ms;
  }
}
