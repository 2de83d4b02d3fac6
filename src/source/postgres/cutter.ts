import { ShipmateError } from '../../errors.ts';
import type { Cutter, Until } from '../source.ts';
import { type Ancestor, parseHistory } from './history.ts';
import { idText, lsnText, parseId, parseLsn, type WalId } from './lsn.ts';
import { parseWalName, segmentStart } from './wal-name.ts';
import { readPageHeader } from './wal-page.ts';
import { type WalEvent, WalScanner } from './wal-records.ts';

/** A place as an operator names it: without a timeline it is the one where the log goes on. */
export type Target = Omit<WalId, 'timeline'> & { readonly timeline: number | null };

/** `2/0/16B3748`, `0/16B3748`. Throws UsageError. */
export function parseTarget(text: string): Target {
  return text.split('/').length === 3 ? parseId(text) : { timeline: null, lsn: parseLsn(text) };
}

/**
 * Finds where PostgreSQL would stop on one timeline's WAL: at the first commit or abort later than a time, or with the first
 * record that begins at an LSN or behind it. It cuts nothing off: recovery has to see that record whole.
 */
export class WalCutter implements Cutter {
  readonly #until: Until;
  readonly #target: Target | null;
  /** Where the next run leaves this one: what lies behind that does not count. */
  readonly #left: bigint | null;
  readonly #scanner = new WalScanner((event) => this.#meet(event));
  #segment = '';
  #segmentBytes: number | null = null;
  #timeline = 0;
  readonly #history: Uint8Array[] = [];
  /** Of the next byte; null in a file that is no WAL. */
  #lsn: bigint | null = null;
  /** The target lies on a later timeline. */
  #isBefore = false;
  reached = false;
  timeMs: number | null = null;
  #stop: bigint | null = null;

  constructor(until: Until, next: string | null) {
    this.#until = until;
    this.#target = until.kind === 'id' ? parseTarget(until.id) : null;
    this.#left = next === null ? null : parseTarget(next).lsn;
  }

  get isAtEnd(): boolean {
    return this.#target !== null && !this.#isBefore && this.#lsn !== null && this.#target.lsn <= this.#end(this.#lsn);
  }

  get id(): string {
    const lsn = this.#target?.lsn ?? this.#stop ?? this.#end(this.#lsn ?? 0n);
    return idText({ timeline: this.#timeline, lsn });
  }

  feed(segment: string, bytes: Uint8Array): number {
    if (segment !== this.#segment) this.#enter(segment, bytes);
    if (parseWalName(segment)?.kind === 'history') this.#history.push(Uint8Array.from(bytes));
    if (this.#lsn === null) return bytes.length;
    const living = Number(this.#end(this.#lsn + BigInt(bytes.length)) - this.#lsn);
    if (living > 0) this.#scanner.feed(this.#lsn, bytes.subarray(0, living));
    this.#lsn += BigInt(bytes.length);
    if (this.#target && !this.#isBefore) this.reached ||= (this.#scanner.lastStart ?? -1n) >= this.#target.lsn;
    return bytes.length;
  }

  /** The LSN, or where what counts ends before it. */
  #end(lsn: bigint): bigint {
    return this.#left !== null && this.#left < lsn ? this.#left : lsn;
  }

  #enter(segment: string, bytes: Uint8Array): void {
    this.#segment = segment;
    const name = parseWalName(segment);
    if (name?.kind !== 'segment') return;
    this.#segmentBytes ??= readPageHeader(bytes)?.long?.segmentBytes ?? null;
    this.#lsn = this.#segmentBytes === null ? null : segmentStart(name, this.#segmentBytes);
    if (this.#timeline === name.timeline) return;
    this.#timeline = name.timeline;
    if (this.#target?.timeline) this.#demandLiving({ ...this.#target, timeline: this.#target.timeline });
  }

  /** Throws where the target lies on no part of a timeline that led here. */
  #demandLiving(target: WalId): void {
    this.#isBefore = target.timeline > this.#timeline;
    if (target.timeline === this.#timeline && this.#left !== null && target.lsn > this.#left) {
      throw deadPart(target, `timeline ${this.#timeline} was left at ${lsnText(this.#left)}`);
    }
    if (target.timeline >= this.#timeline || this.#history.length === 0) return;
    const ancestors: readonly Ancestor[] = parseHistory(Buffer.concat(this.#history));
    const ancestor = ancestors.find(({ timeline }) => timeline === target.timeline);
    if (ancestor === undefined) throw deadPart(target, `timeline ${this.#timeline} does not descend from that one`);
    if (target.lsn <= ancestor.switchLsn) return;
    throw deadPart(target, `timeline ${target.timeline} was left at ${lsnText(ancestor.switchLsn)}`);
  }

  #meet({ kind, micros, start }: WalEvent): void {
    if (this.reached || (kind !== 'commit' && kind !== 'abort')) return;
    if (this.#until.kind === 'time' && micros > this.#until.ms * 1000) {
      this.reached = true;
      this.#stop = start;
    } else if (this.#target === null || start <= this.#target.lsn) {
      this.timeMs = Math.floor(micros / 1000);
    }
  }
}

const deadPart = (target: WalId, why: string) =>
  new ShipmateError(`${idText(target)} is no part of the log: ${why}`, {
    code: 'NOT_IN_ARCHIVE',
    hint: `${lsnText(target.lsn)}, without a timeline, is looked for where the log went on; --through-term restores what was left behind`,
  });
