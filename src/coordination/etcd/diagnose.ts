import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { codeOf, messageOf } from '../../errors.ts';
import { addressOf, authorities, type TlsFiles } from './endpoint.ts';

/** What is wrong with an endpoint, and what to do. */
export interface Diagnosis {
  readonly message: string;
  readonly hint: string;
}

const PROBE_MS = 1_000;
/** After the handshake a server that wants a client certificate still has to say so. */
const SETTLE_MS = 250;

/** What HTTP/2 begins with, and an empty SETTINGS frame. */
const PREFACE = Buffer.concat([
  Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  Buffer.from('000000040000000000', 'hex'),
]);
const TLS_ALERT = 0x15;

/**
 * gRPC tells little about a connection that fails, and about TLS nothing: so connect once by hand and look. Takes a
 * second at most; null where nothing wrong is seen.
 */
export async function diagnose(endpoint: string, tls: TlsFiles | null): Promise<Diagnosis | null> {
  const { host, port, secure } = addressOf(endpoint);
  const socket = secure
    ? connectTls({ ...tls, host, port, ca: authorities(tls), ...servername(host), ALPNProtocols: ['h2'] })
    : connectTcp({ host, port });
  const { failure, firstByte } = await probe(socket, secure ? 'secureConnect' : 'connect');
  if (failure !== null) return secure ? (ofTls(failure) ?? ofTcp(failure, host)) : ofTcp(failure, host);
  if (firstByte === 'closed' || (!secure && firstByte === TLS_ALERT)) {
    const [speaks, scheme] = secure ? ['no TLS', 'http'] : ['TLS', 'https'];
    return {
      message: 'it ends the connection at once',
      hint: `check that this is etcd's client port; if etcd speaks ${speaks} there, write ${scheme}://`,
    };
  }
  return null;
}

const servername = (host: string) => (isIP(host) ? {} : { servername: host });

interface Seen {
  readonly failure: Error | null;
  readonly firstByte: number | 'closed' | null;
}

function probe(socket: Socket, connected: 'connect' | 'secureConnect'): Promise<Seen> {
  return new Promise((resolve) => {
    const settle = (seen: Partial<Seen>) => {
      clearTimeout(timer);
      socket.destroy();
      resolve({ failure: null, firstByte: null, ...seen });
    };
    const timer = setTimeout(() => settle({ failure: new Error('no answer') }), PROBE_MS).unref();
    socket.on('error', (failure) => settle({ failure }));
    socket.on('close', () => settle({ firstByte: 'closed' }));
    socket.on('data', (bytes) => settle({ firstByte: bytes[0] ?? null }));
    socket.once(connected, () => {
      socket.write(PREFACE);
      setTimeout(settle, SETTLE_MS, {}).unref();
    });
  });
}

function ofTcp(error: Error, host: string): Diagnosis | null {
  switch (codeOf(error)) {
    case 'ECONNREFUSED':
      return { message: 'nothing listens there', hint: 'start etcd, or correct the endpoint' };
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return { message: `the name ${host} is not known`, hint: 'correct the endpoint, or the name service' };
    default:
      return { message: messageOf(error), hint: 'check the network and the firewalls between this node and etcd' };
  }
}

function ofTls(error: Error): Diagnosis | null {
  const code = codeOf(error) ?? '';
  if (/SELF_SIGNED|UNABLE_TO_VERIFY|UNABLE_TO_GET_ISSUER/.test(code)) {
    return {
      message: 'its certificate is not signed by an authority that this node trusts',
      hint: 'set etcd\'s "tls.ca" to the authority that signed it',
    };
  }
  if (code === 'CERT_HAS_EXPIRED') return { message: 'its certificate has expired', hint: "renew etcd's certificate" };
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    return {
      message: 'its certificate is for other names',
      hint: 'write the endpoint with a name or address that the certificate holds',
    };
  }
  if (/ECONNRESET|EPIPE|WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|UNEXPECTED_MESSAGE|HTTP_REQUEST/.test(code)) {
    return { message: 'it does not answer in TLS', hint: 'if etcd speaks none, write the endpoint with http://' };
  }
  if (/ALERT/.test(code)) {
    return {
      message: `it refuses this node's certificate (${code})`,
      hint: 'set etcd\'s "tls.cert" and "tls.key" to a client certificate that it trusts',
    };
  }
  return null;
}
