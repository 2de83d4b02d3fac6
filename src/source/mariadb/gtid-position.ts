import { gtidStateOf } from './gtid.ts';
import type { MysqlGtidState } from './mysql-gtid.ts';

/** GTID positions as IDs carry them: of MariaDB the last GTID of each domain, of MySQL a set. */

const isMysql = (id: string) => id.includes(':');

const setOf = (id: string) => gtidStateOf(id) as MysqlGtidState;

const gtidsOf = (id: string) => (id === '' ? [] : id.split(','));

function partsOf(gtid: string): { domain: string; sequence: bigint } {
  const [domain = '', , sequence = ''] = gtid.split('-');
  return { domain, sequence: BigInt(sequence) };
}

/** The position that has all that either has. */
export function unionOf(a: string, b: string): string {
  if (a === '' || b === '') return a || b;
  if (isMysql(a) || isMysql(b)) return gtidStateOf(`${a},${b}`).text();
  const last = new Map<string, string>();
  for (const gtid of [...gtidsOf(a), ...gtidsOf(b)]) {
    const { domain, sequence } = partsOf(gtid);
    const other = last.get(domain);
    if (other === undefined || partsOf(other).sequence < sequence) last.set(domain, gtid);
  }
  return gtidStateOf([...last.values()].join(',')).text();
}

/** What of a position somebody who has `base` still lacks. */
export function remainderOf(id: string, base: string): string {
  const isThere = (gtids: string) => gtidStateOf(base).covers(gtidStateOf(gtids));
  if (base === '' || isMysql(id) !== isMysql(base)) return id;
  if (isMysql(id)) return setOf(id).without(setOf(base)).text();
  return gtidsOf(id)
    .filter((gtid) => !isThere(gtid))
    .join(',');
}

/**
 * A GTID of the one that stands for another transaction in the other: the same domain and sequence number, but of another
 * server. Null where there is none.
 */
export function contradiction(id: string, other: string): { named: string; found: string } | null {
  if (isMysql(id) || isMysql(other)) return null;
  const place = (gtid: string) => `${partsOf(gtid).domain}-${partsOf(gtid).sequence}`;
  const found = new Map(gtidsOf(other).map((gtid) => [place(gtid), gtid]));
  for (const named of gtidsOf(id)) {
    const there = found.get(place(named));
    if (there !== undefined && there !== named) return { named, found: there };
  }
  return null;
}
