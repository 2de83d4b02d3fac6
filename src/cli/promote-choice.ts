import type { Holding } from '../archive/promote.ts';
import type { Cursor } from '../coordination/coordination.ts';
import { comparePlaces, placeText } from '../core/keys.ts';
import { messageOf, ShipmateError } from '../errors.ts';

/** The primary that is to be replaced. */
export interface Present {
  readonly store: string;
  /** Id of the archive that the twins know; null where they have forgotten. */
  readonly archive: string | null;
  /** The highest that anybody tells of. */
  readonly generation: number;
  readonly cursor: Cursor | null;
  /** What was asked for is so already. */
  readonly isSettled: boolean;
}

/** What came of looking into a store. */
export interface Looked {
  readonly store: string;
  /** Null where it holds no archive of the stream, or did not answer. */
  readonly holding: Holding | null;
  readonly error: unknown;
}

export interface Candidate {
  readonly store: string;
  readonly holding: Holding;
  /** What an operator should know before saying yes. */
  readonly remarks: readonly string[];
}

/**
 * The store that was asked for, or else the copy that goes furthest. Throws a ShipmateError where that can't be promoted, with
 * what keeps each store from it.
 */
export function choose(stream: string, looked: readonly Looked[], present: Present, to: string | undefined): Candidate {
  const able = looked.flatMap(({ store, holding, error }) =>
    holding && refusal({ store, holding, error }, present) === null ? [{ store, holding }] : [],
  );
  // A copy of an earlier generation was left behind by a promotion, or has yet to hear of it.
  const isCopy = ({ store }: { readonly store: string }) => store === to || store !== present.store;
  const current = able.filter((one) => isCopy(one) && one.holding.end.generation >= present.generation);
  const best = current.reduce<(typeof able)[number] | null>(
    (furthest, one) => (furthest && comparePlaces(furthest.holding.end, one.holding.end) >= 0 ? furthest : one),
    null,
  );
  const chosen = to === undefined ? best : able.find(({ store }) => store === to);
  if (!chosen) {
    const asked = looked.filter(({ store }) => to === undefined || store === to);
    const error = asked.map((one) => `${one.store}: ${refusal(one, present) ?? leftBehind(one, present)}`).join('; ');
    throw new ShipmateError(`no copy of stream ${stream} can be promoted: ${error}`, {
      code: 'PROMOTE_FAILED',
      hint: 'nothing was changed. Put the store right, or name another one with --to',
    });
  }
  const rest = looked.filter(({ store }) => store !== chosen.store);
  const remarks = [
    ...(current.includes(chosen) ? [] : [`WARNING: store ${chosen.store}: ${leftBehind(chosen, present)}.`]),
    ...rest.map((other) => remark(other, chosen, present)),
  ];
  return { ...chosen, remarks };
}

/** Why a store can't be promoted at all; null where it can. */
function refusal({ store, holding, error }: Looked, { archive }: Present): string | null {
  if (error !== null) return messageOf(error);
  if (holding === null) return 'it holds no archive of this stream';
  const { info } = holding.archive;
  if (archive === null || info.archive === archive) return null;
  return `it holds archive ${info.archive} (cluster ${info.cluster}), but the twins know ${archive}: is ${store} the right store?`;
}

const leftBehind = ({ holding }: Pick<Looked, 'holding'>, { generation }: Present) =>
  `it holds generation ${holding?.end.generation ?? 0}, and ${generation} was promoted since: what was shipped after that is not in it`;

function remark(other: Looked, { store, holding }: Omit<Candidate, 'remarks'>, present: Present): string {
  const why = refusal(other, present);
  if (why !== null || other.holding === null) return `Of the other copies, ${other.store} was not compared: ${why}.`;
  const { end } = other.holding;
  const upTo = end.last ? placeText(end.last) : 'no object';
  const isCurrent = end.generation >= present.generation;
  if (!isCurrent || comparePlaces(end, holding.end) <= 0) return `Store ${other.store} holds no more: up to ${upTo}.`;
  return `WARNING: store ${other.store} goes further than ${store}, up to ${upTo}: promote that one rather.`;
}
