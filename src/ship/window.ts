import type { RetryOptions } from '../archive/retry.ts';
import { common, createMine, type Writer } from '../archive/takeover.ts';
import type { Archive } from '../archive/walk.ts';
import type { EncodedPayload, Encoder } from '../codec/encoder.ts';
import { objectBytes } from '../codec/object.ts';
import { type ChainEnd, step } from '../core/chain.ts';
import { type Chunk, encodeHeader } from '../core/header.ts';
import { abortReason } from '../errors.ts';
import type { Cut } from './chunker.ts';

export interface WindowOptions {
  readonly archive: Archive;
  readonly writer: Writer;
  readonly encoder: Encoder;
  readonly upload: RetryOptions;
  /** Told of every chunk in chain order, once it and all below it are durable. */
  readonly onSettled: (chunk: Chunk, cut: Cut) => void;
  /** Told once, of what ended the window: Deposed, or an encoder's failure. */
  readonly onFailure: (error: unknown) => void;
}

/** An encoded object, and the chain with it at its end. */
interface Encoded {
  readonly header: Chunk;
  readonly digest: string;
  readonly body: Uint8Array;
  readonly payload: EncodedPayload;
  readonly end: ChainEnd;
}

/**
 * The slots of one term that are on their way. Chunks are encoded and uploaded side by side; their headers are linked in
 * order, and they settle in order. No slot is begun W or more above the lowest unsettled one (protocol rule 6).
 */
export class UploadWindow {
  readonly #options: WindowOptions;
  #encoded: Promise<ChainEnd>;
  #settling: Promise<unknown> = Promise.resolve();
  #settled: ChainEnd;
  #inFlight = 0;
  #failure: { readonly reason: unknown } | null = null;
  #wake = Promise.withResolvers<void>();

  constructor(opened: ChainEnd, options: WindowOptions) {
    this.#options = options;
    this.#settled = opened;
    this.#encoded = Promise.resolve(opened);
    const { signal } = options.upload;
    signal.addEventListener('abort', () => this.#fail(signal.reason), { once: true });
  }

  /** The chain up to which everything is durable. */
  get settled(): ChainEnd {
    return this.#settled;
  }

  get hasRoom(): boolean {
    return this.#inFlight < this.#options.archive.info.window;
  }

  get isEmpty(): boolean {
    return this.#inFlight === 0;
  }

  /** Resolves when a further chunk may be submitted; throws what ended the window. */
  async room(): Promise<void> {
    while (!this.hasRoom) await this.#change();
  }

  /** Resolves when everything submitted has settled; throws what ended the window. */
  async drained(): Promise<void> {
    while (this.#inFlight > 0) await this.#change();
  }

  /** Takes over the cut's block. Only while there is room. */
  submit(cut: Cut): void {
    this.#inFlight++;
    const payload = this.#options.encoder.encode(cut.block, cut.length).finally(() => cut.block.release());
    const encoded = Promise.all([this.#encoded, payload]).then(([end, payload]) => this.#link(end, cut, payload));
    this.#encoded = encoded.then(({ end }) => end);
    const stored = encoded.then((object) => this.#store(object));
    this.#settling = Promise.all([this.#settling, stored]).then(([, object]) => this.#settle(object, cut));
    this.#settling.catch((error) => this.#fail(error));
    // Every link of the chain fails with its predecessor; only the settling one is reported.
    for (const promise of [payload, this.#encoded, stored]) promise.catch(() => {});
  }

  #link(end: ChainEnd, cut: Cut, payload: EncodedPayload): Encoded {
    const header: Chunk = {
      ...common(end, this.#options.writer),
      kind: 'chunk',
      from: cut.from,
      to: cut.to,
      settled: this.#settled.slot,
      length: cut.length,
      endsSegment: cut.endsSegment,
      openTransaction: cut.openTransaction,
      firstEventMs: cut.firstEventMs,
      lastEventMs: cut.lastEventMs,
      witness: payload.witness,
      codec: 'zstd',
      stored: { bytes: payload.bytes.length, sha256: payload.sha256 },
      ...(payload.recipients && { recipients: [...payload.recipients] }),
    };
    const { frame, digest } = encodeHeader(header);
    const body = objectBytes(frame, payload);
    // What readers would refuse is never stored: nobody could take it out of the chain again.
    const { end: linked } = step(end, { header, digest, payloadOffset: frame.length });
    return { header, digest, body, payload, end: linked };
  }

  async #store(object: Encoded): Promise<Encoded> {
    const { archive, upload } = this.#options;
    if (upload.signal.aborted) throw abortReason(upload.signal);
    await createMine(archive, object.header, object.digest, () => object.body, upload);
    object.payload.release(); // every attempt has ended: nothing reads the bytes any more
    return object;
  }

  #settle({ header, end }: Encoded, cut: Cut): void {
    this.#inFlight--;
    this.#settled = end;
    this.#options.onSettled(header, cut);
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
  }

  #fail(reason: unknown): void {
    if (this.#failure) return;
    this.#failure = { reason };
    this.#wake.resolve();
    this.#options.onFailure(reason);
  }

  async #change(): Promise<void> {
    if (!this.#failure) await this.#wake.promise;
    if (this.#failure) throw this.#failure.reason;
  }
}
