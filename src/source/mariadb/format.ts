import { UsageError } from '../../errors.ts';
import type { LogFormat } from '../source.ts';
import { BinlogCutter } from './cutter.ts';
import { gtidStateOf, parsePlace } from './gtid.ts';

/** Binlogs, MariaDB's and MySQL's: which of the two says each file's first event, and each ID by its look. */
export function mariadbFormat(): LogFormat {
  return {
    cutter: (until) => new BinlogCutter(until),

    covers(id, target) {
      const place = parsePlace(target);
      const here = parsePlace(id);
      if (place && here) {
        return here.number > place.number || (here.number === place.number && here.offset >= place.offset);
      }
      return !place && !here && gtidStateOf(id).covers(gtidStateOf(target));
    },

    parseId(text) {
      const id = text.trim();
      if (id === '') throw new UsageError('an empty ID names no transaction');
      return parsePlace(id) ? id : gtidStateOf(id).text();
    },

    /** The index that the server's tools take: the paths are relative to its own directory. */
    extras(segments) {
      const [first] = segments;
      if (first === undefined) return [];
      const name = `${first.slice(0, first.lastIndexOf('.'))}.index`;
      return [{ name, content: segments.map((segment) => `./${segment}\n`).join('') }];
    },
  };
}
