import { z } from 'zod';
import { nearestHint } from '../core/nearest.ts';
import { duration, name, notEmpty, object, withHint } from './values.ts';

/** Where a stream's bytes go, who can read them there, and how long they stay. */

const counted = (what: string) => z.int().min(1).max(100_000).exactOptional().describe(what);

/** What retention keeps: everything that any of these asks for. */
export const keep = object({
  age: duration({ min: '1m', max: `${100 * 365}d` })
    .exactOptional()
    .describe('The log of so long.'),
  segments: counted('So many of the newest segments.'),
  daily: counted('The log back to the oldest of so many days that have any.'),
  weekly: counted('The same in weeks (ISO 8601, UTC).'),
  monthly: counted('The same in months.'),
}).refine(notEmpty, 'must say what is kept: "age", "segments", "daily", "weekly" or "monthly"');

/** Bech32 of 32 bytes; the checksum is checked where the key is used. */
const RECIPIENT = /^age1[02-9ac-hj-np-z]{58}$/;

export const encrypt = object({
  recipients: z
    .array(
      z
        .string()
        .regex(
          RECIPIENT,
          withHint(
            'is not an age recipient',
            'the public key that "age-keygen -y KEYFILE" prints: age1 and 58 characters',
          ),
        ),
    )
    .min(1, 'must name at least one recipient')
    .refine((all) => new Set(all).size === all.length, 'must not name a recipient twice')
    .describe('Public keys of age; whoever has the private key of one of them can read what is shipped from now on.'),
});
const className = z.enum(['slow', 'standard', 'fast']);

export const plan = object({
  primary: name.describe('A name below "stores".'),
  copies: z
    .array(name)
    .refine((all) => new Set(all).size === all.length, 'must not name a store twice')
    .default([])
    .describe('Names below "stores", to which the archive is copied from the primary.'),
  count: z.int().min(1).exactOptional().describe('To how many of them; by default to all.'),
  delay: duration({ min: '0s', max: '365d' })
    .prefault('0s')
    .describe('How much later: the first copy after so long, the second after twice that, and so on.'),
  order: z
    .array(name)
    .refine((all) => new Set(all).size === all.length, 'must not name a store twice')
    .default([])
    .describe('Which copies come first; the others follow in the order of their free capacity.'),
  ack: z
    .int()
    .min(1)
    .default(1)
    .describe('How many stores, the primary among them, must hold a chunk before the source may let go of it.'),
  class: className.default('standard').describe('The bandwidth class in which copies are made.'),
})
  .refine(({ primary, copies }) => !copies.includes(primary), {
    path: ['copies'],
    message: 'must not name the primary',
  })
  .refine(({ copies, count }) => count === undefined || count <= copies.length, {
    path: ['count'],
    message: 'must not be more than there are copies',
  })
  .refine(({ copies, count, ack }) => ack <= 1 + (count ?? copies.length), {
    path: ['ack'],
    message: 'must not be more than the primary and its copies',
  })
  .superRefine(({ copies, order }, { addIssue }) => {
    for (const [at, one] of order.entries()) {
      if (copies.includes(one)) continue;
      const message = withHint(`"${one}" is not among the copies`, nearestHint(one, copies));
      addIssue({ code: 'custom', path: ['order', at], message });
    }
  });

export type ClassName = z.output<typeof className>;
