import type { S3Client } from '@aws-sdk/client-s3';
import { limited } from '../limited.ts';
import { type Action, failure, isCredentialsRefused, tooSlow } from './errors.ts';

type Sdk = typeof import('@aws-sdk/client-s3');

export interface Timings {
  /** A connection on which nothing moves for so long is given up. */
  readonly stallMs: number;
  /** A call that takes longer is given up; large bodies get more time. */
  readonly deadlineMs: number;
}

export interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

export interface BucketOptions {
  /** The store's, for messages. */
  readonly name: string;
  readonly bucket: string;
  readonly prefix: string;
  readonly region: string | undefined;
  readonly endpoint: string | undefined;
  readonly forcePathStyle: boolean;
  readonly credentials: Credentials | undefined;
  readonly timings: Timings;
}

export interface Call {
  readonly action: Action;
  readonly signal?: AbortSignal | undefined;
  readonly bodyBytes?: number;
}

interface Opened {
  readonly sdk: Sdk;
  readonly client: S3Client;
}

/** As many as a reader asks for at once. */
const MAX_SOCKETS = 256;

/**
 * Calls on one bucket. Each is made once, within its deadline and its signal. Throws what the SDK throws, a ShipmateError
 * at the deadline, or the signal's reason.
 */
export class Bucket {
  readonly name: string;
  readonly timings: Timings;
  readonly #options: BucketOptions;
  #opened: Promise<Opened> | null = null;

  constructor(options: BucketOptions) {
    this.name = options.name;
    this.timings = options.timings;
    this.#options = options;
  }

  nameOf(key: string): string {
    const { prefix } = this.#options;
    return prefix === '' ? key : `${prefix}/${key}`;
  }

  keyOf(name: string): string {
    const { prefix } = this.#options;
    return prefix === '' ? name : name.slice(prefix.length + 1);
  }

  /** Of an object. */
  place(key: string): { Bucket: string; Key: string } {
    return { Bucket: this.#options.bucket, Key: this.nameOf(key) };
  }

  async call<T>(
    { action, signal, bodyBytes = 0 }: Call,
    work: (opened: Opened & { limits: { abortSignal: AbortSignal } }) => Promise<T>,
  ): Promise<T> {
    const { deadlineMs } = this.timings;
    const late = (waitedMs: number) => tooSlow(this.name, action, waitedMs);
    return limited({ signal, deadlineMs, bodyBytes, tooSlow: late }, async (limit) => {
      this.#opened ??= this.#open();
      const { sdk, client } = await this.#opened;
      try {
        return await work({ sdk, client, limits: { abortSignal: limit } });
      } catch (error) {
        if (isCredentialsRefused(error)) renewCredentials(client);
        throw error;
      }
    });
  }

  /** A failed call in the operator's words, but for what the signal ended. */
  fail({ action, signal }: Call, error: unknown): unknown {
    return signal?.aborted ? signal.reason : failure(this.name, action, error);
  }

  async #open(): Promise<Opened> {
    const { region, endpoint, forcePathStyle, credentials, timings } = this.#options;
    const sdk = await import('@aws-sdk/client-s3');
    const agent = { keepAlive: true, maxSockets: MAX_SOCKETS };
    const client = new sdk.S3Client({
      // A server of one's own has no regions, but the signature names one.
      ...((region ?? (endpoint && !process.env.AWS_REGION)) && { region: region ?? 'us-east-1' }),
      ...(endpoint !== undefined && { endpoint }),
      forcePathStyle,
      ...(credentials && { credentials }),
      // The files of a profile are read anew whenever its credentials are: whoever rotates keys writes them there.
      ...{ ignoreCache: true },
      // A retry in here would turn one's own object into a stranger's without a word: the loops retry, and compare.
      maxAttempts: 1,
      // Bodies are signed with their SHA-256 and carry a CRC32C that is made here.
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      requestHandler: {
        connectionTimeout: timings.stallMs,
        socketTimeout: timings.stallMs,
        httpAgent: agent,
        httpsAgent: agent,
      },
    });
    return { sdk, client };
  }
}

/** The SDK keeps what names no expiry for good. Not waited for: what gives credentials may hang, and later attempts come. */
function renewCredentials({ config }: S3Client): void {
  config.credentials({ forceRefresh: true }).catch(() => {}); // the next attempt says why
}
