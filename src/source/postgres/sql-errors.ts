import { redact } from '../../core/log.ts';
import { codeOf, isError, messageOf, ShipmateError } from '../../errors.ts';

/** Both may pass: whoever meets one asks again later. */
export const serverUnreachable = (message: string, hint: string, cause?: unknown) =>
  new ShipmateError(message, { code: 'SERVER_UNREACHABLE', hint, verdict: 'retry', cause });
export const badServer = (message: string, hint: string, cause?: unknown) =>
  new ShipmateError(message, { code: 'BAD_SERVER', hint, verdict: 'retry', cause });

/** PostgreSQL's code of an error, by which it is the same in every language; undefined: it is not the server's. */
export function sqlStateOf(error: unknown): string | undefined {
  const told = error instanceof ShipmateError ? error.cause : error;
  return isError(told) && 'severity' in told ? codeOf(told) : undefined;
}

const RIGHTS = 'GRANT pg_monitor TO the user of "url:", and ALTER ROLE it REPLICATION';

/** What the server itself refuses for good, by the beginning of its code. */
const REFUSED: readonly (readonly [sqlState: string, hint: string])[] = [
  ['28P01', 'check the password in "url:" of the config'],
  ['28', 'check the user in "url:" of the config, and the server\'s pg_hba.conf'],
  ['3D', 'check the database in "url:" of the config; "postgres" will do'],
  ['42501', RIGHTS],
  ['42', 'see that "url:" leads to the server itself, which must be PostgreSQL 13.5, 14.1 or later'],
];

/** What keeps it from answering now. */
const PASSING: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'see that PostgreSQL runs, and that "url:" in the config names its host and port',
  ENOENT: 'see that PostgreSQL runs, and that "host=" in "url:" names the directory of its socket',
  EACCES: 'see that the user that runs shipmate may use the socket',
  ENOTFOUND: 'check the host in "url:" of the config',
  '53300': 'raise max_connections, or find out who holds so many',
  '57P03': 'it starts or ends; a standby answers only where hot_standby is on',
};

/** What a failed question means to an operator. Its message never holds a password. */
export function failedSql(error: unknown, { url, stream }: { url: string; stream: string }): ShipmateError {
  if (error instanceof ShipmateError) return error;
  const about = `stream ${stream}: the PostgreSQL server at ${endpointOf(url)}`;
  const message = redact(messageOf(error) || codeOf(error) || 'unknown error');
  // The driver, before it sends a password.
  if (/^SASL/.test(message)) {
    return badServer(
      `${about} wants a password: ${message}`,
      'name one in "url:", or use a socket and peer authentication',
      error,
    );
  }
  const sqlState = sqlStateOf(error);
  const refusal = REFUSED.find(([beginning]) => sqlState?.startsWith(beginning));
  if (refusal) return badServer(`${about} refuses: ${message}`, refusal[1], error);
  const hint = PASSING[sqlState ?? codeOf(error) ?? ''] ?? 'look at its log, its load and the network';
  return serverUnreachable(`${about} does not answer: ${message}`, hint, error);
}

/** For messages: `db-1:5432`, `/run/postgresql`; never the user's password. */
export function endpointOf(url: string): string {
  const { hostname, port, searchParams } = URL.parse(url.replace(/@(?=[/?]|$)/, '@localhost')) ?? {};
  const host = searchParams?.get('host') || decodeURIComponent(hostname ?? '') || 'localhost';
  const at = searchParams?.get('port') || port || '5432';
  return host.startsWith('/') ? `${host}/.s.PGSQL.${at}` : `${host}:${at}`;
}
