import type { Connection } from 'mariadb';
import { codeOf } from '../../errors.ts';

/** For a connection, and for each question on it. */
export const ANSWER_WITHIN_MS = 5_000;

export type Row = Readonly<Record<string, unknown>>;

/** Asks questions of a server on a connection of their own; throws what the driver throws, which may show the URL's password. */
export async function withServer<T>(url: string, ask: (query: Query) => Promise<T>): Promise<T> {
  const { createConnection } = await import('mariadb');
  const connection = await createConnection(connectionOptions(url));
  // A server that goes away while it is asked fails the question; the event would end the process.
  connection.on('error', () => {});
  try {
    return await ask((sql) => connection.query({ sql, timeout: ANSWER_WITHIN_MS }));
  } finally {
    await close(connection);
  }
}

export type Query = (sql: string) => Promise<Row[]>;

/** Null where the user lacks the right. */
export async function ifPermitted<T>(answer: Promise<T>): Promise<T | null> {
  try {
    return await answer;
  } catch (error) {
    if (codeOf(error) === 'ER_SPECIFIC_ACCESS_DENIED_ERROR') return null;
    throw error;
  }
}

/** What a URL says, as the driver takes it. */
export function connectionOptions(url: string) {
  const { hostname, port, username, password, searchParams } = new URL(url);
  const socketPath = searchParams.get('socket');
  return {
    user: decoded(username),
    password: decoded(password),
    ...(socketPath ? { socketPath } : { host: withoutBrackets(hostname) || 'localhost', port: Number(port || 3306) }),
    connectTimeout: ANSWER_WITHIN_MS,
  };
}

/** A "%" that encodes nothing stands for itself: in a password that was put into the URL as it is. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** In a URL an IPv6 address has them, for the driver it has none. */
const withoutBrackets = (hostname: string) => hostname.replace(/^\[(.*)\]$/, '$1');

async function close(connection: Connection): Promise<void> {
  await connection.end().catch(() => connection.destroy());
}
