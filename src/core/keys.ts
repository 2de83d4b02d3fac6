/** Names of objects below a store's prefix. Terms and slots are lower-case hex, so that key order is chain order. */

/** Where an object stands in the chain: terms count from 1, slots from 0. */
export interface Place {
  readonly term: number;
  readonly slot: number;
}

const TERM_DIGITS = 8;
const SLOT_DIGITS = 10;

const hex = (value: number, digits: number) => value.toString(16).padStart(digits, '0');

export const streamKey = (stream: string) => `${stream}/stream.json`;
export const termsPrefix = (stream: string) => `${stream}/terms/`;
export const termPrefix = (stream: string, term: number) => `${stream}/terms/${hex(term, TERM_DIGITS)}/`;
export const placeKey = (stream: string, { term, slot }: Place) =>
  `${termPrefix(stream, term)}${hex(slot, SLOT_DIGITS)}`;
export const floorsPrefix = (stream: string) => `${stream}/floors/`;
export const floorKey = (stream: string, { term, slot }: Place) =>
  `${floorsPrefix(stream)}${hex(term, TERM_DIGITS)}-${hex(slot, SLOT_DIGITS)}`;
export const probeKey = (stream: string, name: string) => `${stream}/probe/${name}`;

const PLACE = /\/terms\/([0-9a-f]{8})\/([0-9a-f]{10})$/;
const TERM = /\/terms\/([0-9a-f]{8})(?:\/|$)/;
const FLOOR = /\/floors\/([0-9a-f]{8})-([0-9a-f]{10})$/;

function toPlace(match: RegExpExecArray | null): Place | null {
  return match ? { term: Number.parseInt(match[1]!, 16), slot: Number.parseInt(match[2]!, 16) } : null;
}

/** The place that a key names; null for any other key. */
export const placeOf = (key: string) => toPlace(PLACE.exec(key));
export const floorOf = (key: string) => toPlace(FLOOR.exec(key));
export function termOf(key: string): number | null {
  const match = TERM.exec(key);
  return match ? Number.parseInt(match[1]!, 16) : null;
}

export function comparePlaces(a: Place, b: Place): number {
  return a.term - b.term || a.slot - b.slot;
}

export const placeText = ({ term, slot }: Place) => `term ${term}, slot ${slot}`;
