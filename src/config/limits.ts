import { z } from 'zod';
import { bytesText } from '../core/format.ts';
import type { ClassName } from './delivery.ts';
import { notEmpty, object, rate, withHint } from './values.ts';

const timeOfDay = z
  .string()
  .regex(/^([01]\d|2[0-3]):[0-5]\d$/, 'must be a time of day such as "22:00"')
  .meta({ title: 'time of day, HH:MM' });

const share = z
  .string({ error: 'must be a share such as 50%' })
  .regex(/^\d{1,3}%$/, { error: 'must be a share such as 50%', abort: true })
  .transform((text) => Number.parseInt(text, 10) / 100)
  .refine((part) => part <= 1, 'must be at most 100%')
  .meta({ title: 'share, 0% to 100%' });

const link = rate().describe('What may be sent to stores at all, by all streams of this daemon together.');
const shipping = share.describe('The share of it that log shipping is always given when it wants it.');
const guaranteed = (to: ClassName) =>
  rate().exactOptional().describe(`What copies of the class "${to}" are always given when they want it.`);
const classes = object({
  slow: guaranteed('slow'),
  standard: guaranteed('standard'),
  fast: guaranteed('fast'),
} satisfies Record<ClassName, unknown>).describe(
  "Guarantees; with shipping's share never more than the link. What is not used of them is lent out.",
);

const entry = object({
  from: timeOfDay.describe("From when on it counts, in the host's time zone."),
  to: timeOfDay.describe('Until when; on the next day, where that is before "from".'),
  link: link.exactOptional(),
  shipping: shipping.exactOptional(),
  classes: classes.exactOptional(),
})
  .refine(({ from, to }) => from !== to, { path: ['to'], message: 'must be another time than "from"' })
  .refine(
    ({ from: _, to: __, ...changed }) => notEmpty(changed),
    'must say what is other then: "link", "shipping" or "classes"',
  );

interface Bandwidth {
  link: number;
  shipping: number;
  classes: Partial<Record<ClassName, number>>;
}

/** What is guaranteed beyond the link, told by its parts; undefined where it fits. */
function excess({ link, shipping, classes }: Bandwidth): string | undefined {
  const reserved = Object.entries(classes);
  const sum = reserved.reduce((all, [, one]) => all + one, link * shipping);
  if (sum <= link) return undefined;
  const parts = [
    `shipping ${bytesText(link * shipping)}/s (${Math.round(shipping * 100)}%)`,
    ...reserved.map(([name, one]) => `${name} ${bytesText(one)}/s`),
  ];
  return withHint(
    `guarantees more than the link of ${bytesText(link)}/s can carry: ${parts.join(', ')}`,
    'lower a guarantee, or raise "link"; what is not used of a guarantee is lent to others anyway',
  );
}

export const limits = object({
  link,
  shipping: shipping.prefault('50%'),
  classes: classes.prefault({}),
  schedule: z
    .array(entry)
    .default([])
    .meta({
      title: 'list of maps',
      description:
        'What is other at times of the day; what an entry does not name stays, class by class. The first entry that fits ' +
        'counts.',
    }),
}).superRefine(({ schedule, ...base }, { addIssue }) => {
  const refuse = (path: (string | number)[], message: string | undefined) => {
    if (message !== undefined) addIssue({ code: 'custom', path, message });
  };
  refuse([], excess(base));
  // What an entry does not name stays as it is otherwise, class by class.
  for (const [at, { from: _, to: __, ...other }] of schedule.entries()) {
    refuse(['schedule', at], excess({ ...base, ...other, classes: { ...base.classes, ...other.classes } }));
  }
});
