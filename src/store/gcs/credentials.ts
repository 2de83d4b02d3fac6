import { readFile } from 'node:fs/promises';
import { isError, messageOf, ShipmateError } from '../../errors.ts';
import { noCredentials, noToken } from './errors.ts';

/** What makes a request one of an account that may do what it asks for. */
export interface Credentials {
  /** Headers for every request; may take a request of its own once an hour. Throws ShipmateError. */
  headers(): Promise<Readonly<Record<string, string>>>;
  /** They were refused: the next ones are new. */
  forget(): void;
}

/** For emulators. */
export const anonymous: Credentials = { headers: async () => ({}), forget: () => {} };

interface TokenSource {
  getRequestHeaders(url: string): Promise<Headers>;
}

export interface GoogleCredentialsOptions {
  /** The store's, for messages. */
  readonly store: string;
  readonly endpoint: string;
  /** A service account's key or an external account's configuration; by default the environment tells (ADC). */
  readonly keyFile?: string;
  /** Tokens are fetched within this time, or not at all. */
  readonly timeoutMs: number;
}

/** Application-default credentials, workload identity included, or those of a file. Google's client is loaded at first use. */
export function googleCredentials(options: GoogleCredentialsOptions): Credentials {
  const { store, endpoint } = options;
  let source: Promise<TokenSource> | null = null;
  return {
    async headers() {
      source ??= openSource(options);
      try {
        return Object.fromEntries(await (await source).getRequestHeaders(endpoint));
      } catch (error) {
        source = null; // what was wrong may be right at the next attempt
        throw asCredentialsError(store, error);
      }
    },
    forget() {
      source = null;
    },
  };
}

async function openSource({ store, keyFile, timeoutMs }: GoogleCredentialsOptions): Promise<TokenSource> {
  const credentials = keyFile === undefined ? undefined : await readKeyFile(store, keyFile);
  const { Storage } = await import('@google-cloud/storage');
  // A token service that never answers must not hold up every later call.
  const clientOptions = { transporterOptions: { timeout: timeoutMs } };
  return new Storage({ ...(credentials && { credentials }), clientOptions }).authClient;
}

/** Read here, since a parser's message may repeat part of the key. */
async function readKeyFile(store: string, keyFile: string): Promise<object> {
  let text: string;
  try {
    text = await readFile(keyFile, 'utf8');
  } catch (error) {
    throw noCredentials(store, `keyFile can't be read: ${messageOf(error)}`);
  }
  const key = parsed(text);
  if (key === null) throw noCredentials(store, `keyFile ${keyFile} is not a JSON file of credentials`);
  return key;
}

function parsed(text: string): object | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' ? value : null;
  } catch {
    return null;
  }
}

function asCredentialsError(store: string, error: unknown): Error {
  if (error instanceof ShipmateError) return error;
  const message = messageOf(error);
  if (/could not load the default credentials|unable to detect a project/i.test(message)) {
    return noCredentials(store, 'this environment has none');
  }
  const status = statusOf(error);
  // Answered, and refused: a deleted account, a revoked key, a pool that does not trust this workload.
  if (status !== null && status >= 400 && status < 500 && status !== 408 && status !== 429) {
    return noCredentials(store, `refused with ${status}: ${message}`);
  }
  return noToken(store, error);
}

function statusOf(error: unknown): number | null {
  return isError(error) && 'status' in error && typeof error.status === 'number' ? error.status : null;
}
