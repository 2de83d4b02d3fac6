import { readFile } from 'node:fs/promises';
import type { BlockBlobClient, ContainerClient, StoragePipelineOptions } from '@azure/storage-blob';
import { codeOf } from '../../errors.ts';
import { limited } from '../limited.ts';
import { type Action, failure, isCredentialsRefused, noConnectionString, tooSlow } from './errors.ts';

export interface Timings {
  /** A body of which no byte comes for so long is given up. */
  readonly stallMs: number;
  /** A call that takes longer is given up; large bodies get more time. */
  readonly deadlineMs: number;
}

/** Of these one, which names the account: by its name, its address, or a file with its key. */
export interface Account {
  readonly account?: string | undefined;
  readonly endpoint?: string | undefined;
  readonly connectionStringFile?: string | undefined;
}

export interface ContainerOptions extends Account {
  /** The store's, for messages. */
  readonly name: string;
  readonly container: string;
  readonly prefix: string;
  readonly timings: Timings;
}

export interface Call {
  readonly action: Action;
  readonly signal?: AbortSignal | undefined;
  readonly bodyBytes?: number;
}

// A retry in here would turn one's own object into a stranger's without a word: the loops retry, and compare.
const ONCE: StoragePipelineOptions = { retryOptions: { maxTries: 1 } };

/**
 * Calls on one container. Each is made once, within its deadline and its signal. Throws what the SDK throws, a
 * ShipmateError at the deadline, or the signal's reason.
 */
export class Container {
  readonly name: string;
  readonly timings: Timings;
  readonly #options: ContainerOptions;
  #opened: Promise<ContainerClient> | null = null;

  constructor(options: ContainerOptions) {
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

  async call<T>(
    { action, signal, bodyBytes = 0 }: Call,
    work: (client: ContainerClient, limit: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const { deadlineMs } = this.timings;
    const late = (waitedMs: number) => tooSlow(this.name, action, waitedMs);
    return limited({ signal, deadlineMs, bodyBytes, tooSlow: late }, async (limit) => {
      try {
        return await work(await this.#client(), limit);
      } catch (error) {
        // A key that was rotated: the next attempt reads it anew.
        if (isCredentialsRefused(error)) this.#opened = null;
        throw error;
      }
    });
  }

  /** The same of one object. */
  async callOn<T>(
    key: string,
    call: Call,
    work: (blob: BlockBlobClient, limit: AbortSignal) => Promise<T>,
  ): Promise<T> {
    return this.call(call, (client, limit) => work(client.getBlockBlobClient(this.nameOf(key)), limit));
  }

  /** A failed call in the operator's words, but for what the signal ended. */
  fail({ action, signal }: Call, error: unknown): unknown {
    return signal?.aborted ? signal.reason : failure(this.name, action, error);
  }

  async #client(): Promise<ContainerClient> {
    this.#opened ??= this.#open();
    try {
      return await this.#opened;
    } catch (error) {
      this.#opened = null; // what was wrong may be right at the next attempt
      throw error;
    }
  }

  async #open(): Promise<ContainerClient> {
    const { container, account, connectionStringFile } = this.#options;
    const { BlobServiceClient } = await import('@azure/storage-blob');
    if (connectionStringFile !== undefined) {
      const text = await readConnectionString(this.name, connectionStringFile);
      return fromConnectionString(this.name, () =>
        BlobServiceClient.fromConnectionString(text, ONCE).getContainerClient(container),
      );
    }
    const { DefaultAzureCredential } = await import('@azure/identity');
    const endpoint = this.#options.endpoint ?? `https://${account}.blob.core.windows.net`;
    return new BlobServiceClient(endpoint, new DefaultAzureCredential(), ONCE).getContainerClient(container);
  }
}

async function readConnectionString(store: string, file: string): Promise<string> {
  try {
    const [line = ''] = (await readFile(file, 'utf8')).split('\n');
    return line.trim();
  } catch (error) {
    throw noConnectionString(store, `connectionStringFile can't be read: ${codeOf(error) ?? 'no reason given'}`);
  }
}

/** A parser's message may repeat part of the key. */
function fromConnectionString(store: string, parse: () => ContainerClient): ContainerClient {
  try {
    return parse();
  } catch {
    throw noConnectionString(store, 'connectionStringFile holds no connection string');
  }
}
