import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, open, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { openBlockPool } from '../../src/codec/blocks.ts';
import { encrypting, openEncoder } from '../../src/codec/encoder.ts';
import { objectBytes } from '../../src/codec/object.ts';
import { openFileStore } from '../../src/store/file.ts';

const MIB = 1024 * 1024;
const CHUNK_BYTES = 8 * MIB;
const SLICE_BYTES = MIB;
/** Objects on their way to the store at once. */
const UPLOADS = 4;

export interface CodecBenchOptions {
  readonly logMib?: number;
  readonly runs?: number;
}

export interface CodecBench {
  /** Plain over stored bytes. */
  readonly compression: number;
  /** Medians, MB of plain log a second. */
  readonly shipmateMBps: number;
  readonly zstdMBps: number;
  readonly ratio: number;
  /** The same, encrypted for two recipients. */
  readonly encryptedMBps: number;
  /** Of what is not encrypted. */
  readonly encryptedRatio: number;
}

/**
 * A log file read in slices, cut into chunks, encoded and created in a file store, against `zstd -1 -T2` of the same file
 * with its output fsynced, and against the same encrypted; the runs take turns.
 */
export async function benchCodec({ logMib = 512, runs = 5 }: CodecBenchOptions = {}): Promise<CodecBench> {
  const folder = await mkdtemp(join(tmpdir(), 'shipmate-bench-'));
  try {
    const log = join(folder, 'binlog.000001');
    await writeLog(log, logMib * MIB);
    const shipmate: number[] = [];
    const zstd: number[] = [];
    const encrypted: number[] = [];
    const recipients = await Promise.all([newRecipient(), newRecipient()]);
    let storedBytes = 0;
    for (let run = 0; run < runs; run++) {
      zstd.push(await timed(() => zstdProgram(log, join(folder, 'log.zst'))));
      const root = join(folder, `store-${run}`);
      for (const [seconds, given] of [[shipmate, []] as const, [encrypted, recipients] as const]) {
        await mkdir(root);
        seconds.push(
          await timed(async () => {
            storedBytes = await ship(log, root, given);
          }),
        );
        await rm(root, { recursive: true });
      }
    }
    const toMBps = (seconds: number[]) => Math.round((logMib * MIB) / 1e6 / median(seconds));
    return {
      compression: round((logMib * MIB) / storedBytes),
      shipmateMBps: toMBps(shipmate),
      zstdMBps: toMBps(zstd),
      ratio: round(median(zstd) / median(shipmate)),
      encryptedMBps: toMBps(encrypted),
      encryptedRatio: round(median(shipmate) / median(encrypted)),
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Returns the bytes stored. */
async function ship(log: string, root: string, recipients: readonly string[]): Promise<number> {
  const store = openFileStore({ name: 'bench', path: root });
  const pool = openBlockPool({ blockBytes: CHUNK_BYTES, maxBytes: UPLOADS * CHUNK_BYTES });
  const plain = openEncoder();
  const secret = async () => '00'.repeat(32);
  const encoder = recipients.length > 0 ? encrypting(plain, { recipients, secret }) : plain;
  const never = new AbortController().signal;
  const uploads = new Set<Promise<void>>();
  let storedBytes = 0;
  const upload = async (slot: number, encoding: ReturnType<typeof encoder.encode>) => {
    const payload = await encoding;
    const object = objectBytes(Buffer.alloc(700), payload);
    await store.create(`bench/terms/00000001/${slot.toString(16).padStart(10, '0')}`, object, never);
    storedBytes += object.length;
    payload.release();
  };

  const source = await open(log, 'r');
  try {
    const slice = Buffer.allocUnsafe(SLICE_BYTES);
    for (let slot = 1, end = false; !end; slot++) {
      const block = await pool.acquire(never);
      let length = 0;
      while (length < CHUNK_BYTES && !end) {
        const { bytesRead } = await source.read(slice, 0, SLICE_BYTES);
        block.bytes.set(slice.subarray(0, bytesRead), length);
        length += bytesRead;
        end = bytesRead === 0;
      }
      if (length === 0) break;
      while (uploads.size >= UPLOADS * 2) await Promise.race(uploads);
      const encoding = encoder.encode(block, length).finally(() => block.release());
      const done = upload(slot, encoding).finally(() => uploads.delete(done));
      uploads.add(done);
    }
    await Promise.all(uploads);
  } finally {
    await source.close();
    await encoder.close();
  }
  return storedBytes;
}

async function zstdProgram(log: string, output: string): Promise<void> {
  const child = spawn('sh', ['-c', 'zstd -q -f -1 -T2 "$1" -o "$2" && sync "$2"', 'sh', log, output], {
    stdio: 'inherit',
  });
  const [status] = await once(child, 'exit');
  if (status !== 0) throw new Error(`zstd ended with ${status}`);
  await stat(output);
}

/** Rows of a busy shop: compresses about five to one. */
async function writeLog(path: string, lengthBytes: number): Promise<void> {
  const file = await open(path, 'w');
  try {
    for (let written = 0, id = 0; written < lengthBytes; ) {
      const rows: string[] = [];
      for (let i = 0; i < 5_000; i++, id++) {
        const customer = Math.imul(id, 2_654_435_761) >>> 0;
        const note = Math.imul(customer, 40_503) >>> 0;
        rows.push(
          `INSERT INTO orders (id, customer, amount, note) VALUES (${id}, ${customer % 100_000}, ${(note % 99_999) / 100}, '${note.toString(36)} shipped')`,
        );
      }
      const bytes = Buffer.from(rows.join('\n')).subarray(0, lengthBytes - written);
      await file.writeFile(bytes);
      written += bytes.length;
    }
    await file.sync();
  } finally {
    await file.close();
  }
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const startedMs = performance.now();
  await work();
  return (performance.now() - startedMs) / 1_000;
}

const newRecipient = async () => identityToRecipient(await generateX25519Identity());
const median = (values: readonly number[]) => values.toSorted((a, b) => a - b)[values.length >> 1]!;
const round = (value: number) => Math.round(value * 100) / 100;

if (import.meta.main) console.table(await benchCodec());
