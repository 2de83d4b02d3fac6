import { closestMatch } from 'leven';

/** The name that was probably meant; undefined when none is near. */
export function nearest(given: string, known: readonly string[]): string | undefined {
  const folded = new Map(known.map((name) => [name.toLowerCase(), name]));
  const maxDistance = Math.max(2, Math.floor(given.length / 3));
  const match = closestMatch(given.toLowerCase(), [...folded.keys()], { maxDistance });
  return match === undefined ? undefined : folded.get(match);
}

/** A hint for a name that is not known: the nearest one, else all that are. */
export function nearestHint(given: string, known: readonly string[]): string {
  const match = nearest(given, known);
  if (match !== undefined) return `did you mean "${match}"?`;
  return known.length > 0 ? `known here: ${known.join(', ')}` : 'nothing goes here';
}
