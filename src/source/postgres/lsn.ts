import { UsageError } from '../../errors.ts';

/** A place in a cluster's WAL, the same on every server of it; its text is `<timeline decimal>/<LSN>`: `2/0/16B3748`. */
export interface WalId {
  readonly timeline: number;
  readonly lsn: bigint;
}

const LSN = /^([0-9A-F]{1,8})\/([0-9A-F]{1,8})$/i;
const ID = /^([1-9]\d{0,9})\/([^/]+\/[^/]+)$/;

const HINT = 'an LSN is written like 0/16B3748, and with its timeline before it like 2/0/16B3748';

/** Bytes from the beginning of all WAL, of `0/16B3748`. Throws UsageError. */
export function parseLsn(text: string): bigint {
  const match = LSN.exec(text);
  if (match === null) throw new UsageError(`"${text}" is no LSN`, HINT);
  return (BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`);
}

/** As the server prints it. */
export const lsnText = (lsn: bigint) => `${hex(lsn >> 32n)}/${hex(lsn & 0xffff_ffffn)}`;

const hex = (number: bigint) => number.toString(16).toUpperCase();

/** Throws UsageError. */
export function parseId(text: string): WalId {
  const match = ID.exec(text);
  const timeline = Number(match?.[1]);
  if (match === null || timeline > 0xffff_ffff) throw new UsageError(`"${text}" is no timeline and LSN`, HINT);
  return { timeline, lsn: parseLsn(match[2]!) };
}

export const idText = ({ timeline, lsn }: WalId) => `${timeline}/${lsnText(lsn)}`;

/** Below zero where `a` comes first: a child's WAL follows all of its parent's that lives. */
export function compareIds(a: WalId, b: WalId): number {
  if (a.timeline !== b.timeline) return a.timeline - b.timeline;
  return a.lsn < b.lsn ? -1 : Number(a.lsn > b.lsn);
}
