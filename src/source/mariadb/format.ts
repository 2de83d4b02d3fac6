import { UsageError } from '../../errors.ts';
import type { LogFormat } from '../source.ts';
import { indexOf, mariadbReplay } from './apply.ts';
import { BinlogCutter } from './cutter.ts';
import { MAGIC } from './events.ts';
import { gtidStateOf, isPlace, parsePlace } from './gtid.ts';
import { unionOf } from './gtid-position.ts';

/** Binlogs, MariaDB's and MySQL's: which of the two says each file's first event, and each ID by its look. */
export function mariadbFormat(): LogFormat {
  return {
    cutter: (until, before) => new BinlogCutter(until, before),

    covers(id, target) {
      const place = parsePlace(target);
      const here = parsePlace(id);
      if (place && here) {
        return here.number > place.number || (here.number === place.number && here.offset >= place.offset);
      }
      return !place && !here && gtidStateOf(id).covers(gtidStateOf(target));
    },

    /** A place names nothing that lies in another file: the later ID stands for both. */
    union: (a, b) => (isPlace(a) || isPlace(b) ? b || a : unionOf(a, b)),

    parseId(text) {
      const id = text.trim();
      if (id === '') throw new UsageError('an empty ID names no transaction');
      return parsePlace(id) ? id : gtidStateOf(id).text();
    },

    fileStart({ fileStart }) {
      const bytes = typeof fileStart === 'string' ? Buffer.from(fileStart, 'base64') : null;
      return bytes?.subarray(0, MAGIC.length).equals(MAGIC) ? bytes : null;
    },

    replay: mariadbReplay,

    /** The index that the server's tools take: the paths are relative to its own directory. */
    extras(segments) {
      const [first] = segments;
      if (first === undefined) return [];
      const name = indexOf(first);
      return [{ name, content: segments.map((segment) => `./${segment}\n`).join('') }];
    },
  };
}
