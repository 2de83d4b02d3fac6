import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Server } from 'node:net';
import { type Log, redact } from '../core/log.ts';
import type { StatusReport } from '../core/status.ts';
import { codeOf, messageOf, ShipmateError } from '../errors.ts';
import { statusPage } from './page.ts';

/** What the HTTP side may ask the daemon: everything here only reads. */
export interface AdminView {
  /** In Prometheus' text format. */
  metrics(): Promise<string>;
  /** Names of streams that only a new start of the daemon helps. */
  stuck(): readonly string[];
  /** Whether the role of every stream is known, and source and store can be reached; else why not. */
  ready(): Readiness;
  status(): Promise<StatusReport>;
  /** Whether a file of this host's log is in the archive for sure; null for a stream that this daemon does not have. */
  durable(stream: string, file: AskedFile): Promise<Durable | null>;
}

/** A file of a server's log. */
export interface AskedFile {
  readonly segment: string;
  /** By which it is known whether the daemon has the same one. */
  readonly inode: bigint;
  /** Of all of it, where the inode did not show that. */
  readonly witness: string | null;
}

export interface Durable {
  readonly durable: boolean;
  /** Why, or why not. */
  readonly reason: string;
  readonly hint?: string;
  /** Nothing shows that the daemon has the same file: its witness would. */
  readonly isOther?: boolean;
}

export interface Readiness {
  readonly ok: boolean;
  readonly reasons: readonly string[];
}

export interface AdminOptions {
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
  readonly view: AdminView;
  readonly log: Log;
}

export interface AdminServer {
  /** `http://127.0.0.1:9187`, without a slash at its end. */
  readonly url: string;
  close(): Promise<void>;
}

interface Reply {
  readonly status: number;
  readonly type: string;
  readonly body: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Serves /metrics, /healthz, /readyz, /api/v1/status, what `push` asks, and a page. Throws ADMIN_LISTEN if it can't. */
export async function startAdmin({ host, port, view, log }: AdminOptions): Promise<AdminServer> {
  const server = createServer((request, response) => {
    answer(request, view)
      .catch((error) => {
        log.warn('an HTTP request failed', { path: request.url, error });
        return json(503, { error: redact(messageOf(error)) });
      })
      .then((reply) => send(reply, request, response));
  });
  await listen(server, { host, port });
  server.on('error', (error) => log.warn('the HTTP server failed', { error }));
  return {
    url: urlOf(server.address(), host),
    async close() {
      await new Promise((resolve) => {
        server.close(resolve);
        server.closeAllConnections();
      });
    },
  };
}

/** Throws a fatal ShipmateError that says how the address is to be corrected. */
export function listen(server: Server, { host, port }: Pick<AdminOptions, 'host' | 'port'>): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) => reject(cannotListen(error, host, port)));
    server.listen({ host, port }, resolve);
  });
}

function urlOf(address: AddressInfo | string | null, host: string): string {
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}`;
}

function cannotListen(error: Error, host: string, port: number): ShipmateError {
  const hints: Record<string, string> = {
    EADDRINUSE: 'another program, perhaps another shipmate, has this port: choose another for admin.listen, or stop it',
    EACCES: 'ports below 1024 need rights: choose another for admin.listen',
    EADDRNOTAVAIL: 'this host has no such address: correct admin.listen',
    ENOTFOUND: 'this host name has no address: correct admin.listen',
  };
  return new ShipmateError(`can't listen on ${host}:${port} (admin.listen): ${messageOf(error)}`, {
    code: 'ADMIN_LISTEN',
    hint: hints[codeOf(error) ?? ''] ?? 'correct admin.listen, or set admin: off',
    cause: error,
  });
}

async function answer({ method, url = '/' }: IncomingMessage, view: AdminView): Promise<Reply> {
  const [path = '/', query = ''] = url.split('?', 2);
  const route = ROUTES.get(path) ?? routeOfStream(path, new URLSearchParams(query));
  if (!route) return text(404, `nothing is at ${path}\n`);
  if (method !== 'GET' && method !== 'HEAD') {
    return { ...text(405, 'this interface only reads: GET or HEAD\n'), headers: { allow: 'GET, HEAD' } };
  }
  return route(view);
}

const ROUTES = new Map<string, (view: AdminView) => Promise<Reply> | Reply>([
  ['/', async (view) => html(statusPage(await view.status(), view.ready()))],
  ['/healthz', (view) => health(view.stuck())],
  ['/readyz', (view) => readiness(view.ready())],
  ['/api/v1/status', async (view) => json(200, await view.status())],
  ['/metrics', async (view) => metrics(await view.metrics())],
]);

const OF_STREAM = /^\/api\/v1\/streams\/([^/]+)\/durable$/;

function routeOfStream(path: string, query: URLSearchParams): ((view: AdminView) => Promise<Reply>) | undefined {
  const stream = OF_STREAM.exec(path)?.[1];
  const segment = query.get('segment');
  const inode = query.get('inode');
  const witness = query.get('witness');
  if (stream === undefined) return undefined;
  if (segment === null || inode === null || !/^\d{1,20}$/.test(inode)) {
    return async () => text(400, 'which segment, and which inode has it?\n');
  }
  return async (view) => {
    const answer = await view.durable(stream, { segment, inode: BigInt(inode), witness });
    return answer === null ? text(404, `there is no stream ${stream} here\n`) : json(200, answer);
  };
}

const health = (stuck: readonly string[]) =>
  stuck.length === 0 ? text(200, 'ok\n') : text(503, `stuck: ${stuck.join(', ')}\n`);
const readiness = ({ ok, reasons }: Readiness) => json(ok ? 200 : 503, { ok, reasons: reasons.map(redact) });
const metrics = (body: string): Reply => ({ status: 200, type: 'text/plain; version=0.0.4; charset=utf-8', body });
const text = (status: number, body: string): Reply => ({ status, type: 'text/plain; charset=utf-8', body });
const json = (status: number, value: unknown): Reply => ({
  status,
  type: 'application/json',
  body: `${JSON.stringify(value)}\n`,
});
const html = (body: string): Reply => ({
  status: 200,
  type: 'text/html; charset=utf-8',
  body,
  headers: { 'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'" },
});

function send({ status, type, body, headers }: Reply, { method }: IncomingMessage, response: ServerResponse): void {
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...headers,
  });
  response.end(method === 'HEAD' ? undefined : body);
}
