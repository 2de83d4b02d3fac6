import { z } from 'zod';
import { CLASSES, type Override } from '../core/limits.ts';
import { positionSchema } from '../core/position.ts';
import { COPY_STATES, type CopyStatus } from '../core/status.ts';
import type {
  Answer,
  Cursor,
  OperatorRequest,
  OverviewStream,
  Promotion,
  RememberedArchive,
  Twin,
  TwinBandwidth,
} from './coordination.ts';

/**
 * What stands in etcd's values and in solo's files: JSON, checked when read. Fields that a newer version added are
 * passed over.
 */
const cursor: z.ZodType<Cursor> = z.object({
  archive: z.string(),
  stream: z.string(),
  term: z.int().positive(),
  slot: z.int().nonnegative(),
  digest: z.string(),
  position: positionSchema.nullable(),
  acknowledged: z.object({ term: z.int(), slot: z.int() }).nullable().exactOptional(),
  time: z.string(),
  generation: z.int().nonnegative().exactOptional(),
});

const promotion: z.ZodType<Promotion> = z.object({
  archive: z.string(),
  generation: z.int().positive(),
  store: z.string(),
});

const rememberedArchive: z.ZodType<RememberedArchive> = z.object({
  id: z.string(),
  state: z.enum(['proposed', 'created']),
});

const copyStatus: z.ZodType<CopyStatus> = z.object({
  name: z.string(),
  lagBytes: z.number().nullable(),
  lagSeconds: z.number().nullable(),
  delaySeconds: z.number(),
  state: z.enum(COPY_STATES).catch('waiting'),
  reason: z.string().exactOptional(),
});

const bandwidth: z.ZodType<TwinBandwidth> = z.object({
  link: z.number().nullable(),
  classes: z.array(z.object({ name: z.string(), guaranteed: z.number().nullable(), measured: z.number() })),
  refused: z.array(z.object({ id: z.string(), reason: z.string() })),
});

const twin: z.ZodType<Twin> = z.object({
  node: z.string(),
  version: z.string(),
  format: z.int(),
  time: z.string(),
  streams: z.array(
    z.object({
      name: z.string(),
      // A newer version may know more roles; its twin must be seen all the same.
      role: z.enum(['starting', 'standby', 'taking-over', 'master', 'leaving', 'stopped']).catch('starting'),
      ready: z.boolean(),
      reason: z.string(),
      lagBytes: z.number().nullable(),
      lagSeconds: z.number().nullable(),
      stores: z.array(copyStatus).exactOptional(),
      config: z.string(),
      generation: z.int().nonnegative().exactOptional(),
    }),
  ),
  bandwidth: bandwidth.exactOptional(),
});

const request: z.ZodType<OperatorRequest> = z.object({
  kind: z.enum(['handover', 'accept-gap', 'accept-fork']),
  to: z.string().exactOptional(),
  head: z.string().exactOptional(),
  by: z.string(),
  time: z.string(),
});

const override: z.ZodType<Override> = z.object({
  id: z.string(),
  node: z.string().exactOptional(),
  change: z.object({
    link: z.number().positive().exactOptional(),
    shipping: z.number().min(0).max(1).exactOptional(),
    classes: z.partialRecord(z.enum(CLASSES), z.number().nonnegative()).exactOptional(),
  }),
  fromMs: z.number(),
  untilMs: z.number().nullable(),
  by: z.string(),
  placedMs: z.number(),
});

const answer: z.ZodType<Answer> = z.object({ ok: z.boolean(), message: z.string() });

/** 32 bytes in hex. */
const secret = z.object({ secret: z.string().regex(/^[0-9a-f]{64}$/) });

/** A request where it is kept, with its answer once there is one. */
export interface KeptRequest {
  readonly request: OperatorRequest;
  readonly answer?: Answer;
  /** When it is void, milliseconds since 1970; absent where a lease sees to that. */
  readonly expiresMs?: number;
}

const keptRequest: z.ZodType<KeptRequest> = z.object({
  request,
  answer: answer.exactOptional(),
  expiresMs: z.number().exactOptional(),
});

/** Which process is the daemon of a state directory. */
export interface KeptDaemon {
  readonly node: string;
  readonly pid: number;
  /** What tells this process from a later one with its number; empty where the system does not say. */
  readonly life: string;
}

const keptDaemon: z.ZodType<KeptDaemon> = z.object({ node: z.string(), pid: z.int().positive(), life: z.string() });

/** A twin where it is kept, with the daemon's life that published it: a restart is another. */
export interface KeptTwin {
  readonly instance: string;
  readonly twin: Twin;
}

const keptTwin: z.ZodType<KeptTwin> = z.object({ instance: z.string(), twin });

/** Reads a value, or null where there is none or it is not what it should be. */
function reader<T>(schema: z.ZodType<T>): (text: string | null) => T | null {
  return (text) => {
    if (text === null) return null;
    try {
      return schema.parse(JSON.parse(text));
    } catch {
      return null;
    }
  };
}

export const readCursor = reader(cursor);
export const readArchive = reader(rememberedArchive);
export const readSecret = reader(secret);
export const readPromotion = reader(promotion);
export const readOverride = reader(override);
export const readRequest = reader(keptRequest);
export const readTwin = reader(keptTwin);
export const readDaemon = reader(keptDaemon);

/** What `status` sees of a stream: a promotion voids the cursor of the chain before it. */
export function overviewOf(
  name: string,
  { master, cursor, promotion }: { master: string | null; cursor: Cursor | null; promotion: Promotion | null },
): OverviewStream {
  const isOld = cursor !== null && promotion !== null && (cursor.generation ?? 0) < promotion.generation;
  return { name, master, cursor: isOld ? null : cursor, ...(promotion && { promotion }) };
}

/** Whether what is kept stands against a promotion that is to be remembered. */
export const stands = (kept: Promotion | null, given: Promotion): kept is Promotion =>
  kept !== null && kept.archive === given.archive && kept.generation >= given.generation;
