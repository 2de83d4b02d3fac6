import { z } from 'zod';
import { nearestHint } from '../core/nearest.ts';
import { duration, name, notEmpty, object, withHint } from './values.ts';

/** Where a stream's bytes go, who can read them there, and how long they stay. */

const counted = (description: string) =>
  z.int().min(1).max(100_000).exactOptional().meta({ title: 'whole number, 1 to 100000', description });

/** What retention keeps: everything that any of these asks for. */
export const keep = object({
  age: duration({ min: '1m', max: `${100 * 365}d` })
    .exactOptional()
    .describe('The log of the last so long.'),
  segments: counted('So many of the newest segments.'),
  daily: counted('The log back to the oldest of so many days that have any, in UTC.'),
  weekly: counted('The same in weeks (ISO 8601).'),
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
    .meta({
      title: 'list of age recipients, age1…',
      description:
        'Public keys of age: what is shipped from now on can be read by whoever has the private key of one of them, and ' +
        'by nobody on this host.',
    }),
});
const className = z.enum(['slow', 'standard', 'fast']);

export const plan = object({
  primary: name.describe('Where the masters write: a name below "stores".'),
  copies: z
    .array(name)
    .refine((all) => new Set(all).size === all.length, 'must not name a store twice')
    .default([])
    .meta({
      title: 'list of names',
      description:
        'Names below "stores", to which the archive is copied from the primary. Each must be a place of its own.',
    }),
  count: z
    .int()
    .min(1)
    .exactOptional()
    .meta({ title: 'whole number, from 1', description: 'To how many of them. By default to all.' }),
  delay: duration({ min: '0s', max: '365d' })
    .prefault('0s')
    .describe('How much later: the first copy is due after so long, the second after twice that, and so on.'),
  order: z
    .array(name)
    .refine((all) => new Set(all).size === all.length, 'must not name a store twice')
    .default([])
    .meta({
      title: 'list of names',
      description: 'Which copies come first; the others follow by the room that they have.',
    }),
  ack: z.int().min(1).default(1).meta({
    title: 'whole number, from 1',
    description:
      'How many stores, the primary among them, must hold what is shipped before the source may let go of it.',
  }),
  class: className.default('standard').describe('The class of "limits" in which copies are made.'),
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
