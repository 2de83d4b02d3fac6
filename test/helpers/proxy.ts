import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';

/** A TCP proxy that stands for the network between one client and a server. */
export interface Proxy {
  /** The target's URL with the proxy's port. */
  readonly endpoint: string;
  readonly port: number;
  /** From now on no byte passes, in either direction, on any connection; none is refused or reset. */
  cut(): void;
  /** Lets bytes pass again: those held back too, as TCP sends lost ones again. */
  heal(): void;
  /** Resets every connection; new ones are served. */
  reset(): void;
  /** Holds every byte back for so long, milliseconds. */
  delayMs: number;
  stop(): Promise<void>;
}

/** Listens on a free loopback port and passes bytes to `target`, a URL. */
export async function startProxy(target: string): Promise<Proxy> {
  const url = new URL(target);
  const upstreamAt = { port: Number(url.port), host: url.hostname, noDelay: true };
  const sockets = new Set<Socket>();
  let whole = Promise.resolve();
  let heal = () => {};
  let delayMs = 0;

  const pass = (from: Socket, to: Socket) => {
    sockets.add(from);
    from.on('error', () => to.destroy());
    from.on('close', () => {
      sockets.delete(from);
      to.destroy();
    });
    // One piece at a time, in order; the sender is held up while the network is cut or slow.
    from.on('data', async (bytes) => {
      from.pause();
      if (delayMs > 0) await new Promise((resolve) => setTimeout(resolve, delayMs));
      await whole;
      to.write(bytes);
      from.resume();
    });
  };
  const server = createServer({ noDelay: true }, (client) => {
    const upstream = connect(upstreamAt);
    pass(client, upstream);
    pass(upstream, client);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the proxy has no port');
  url.port = String(address.port);

  return {
    endpoint: url.origin,
    port: address.port,
    cut: () => {
      heal();
      whole = new Promise((resolve) => {
        heal = resolve;
      });
    },
    heal: () => heal(),
    reset: () => {
      for (const socket of sockets) socket.resetAndDestroy();
    },
    get delayMs() {
      return delayMs;
    },
    set delayMs(value) {
      delayMs = value;
    },
    stop: async () => {
      heal();
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}
