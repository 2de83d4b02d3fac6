/** Names of Shipmate's keys in etcd; kept stable across versions. Neither cluster, stream nor node names hold a `/`. */
export class Keys {
  readonly #root: string;

  constructor(cluster: string) {
    this.#root = `/shipmate/${cluster}`;
  }

  /** Prefix of everything of the cluster. */
  get all(): string {
    return `${this.#root}/`;
  }
  get streams(): string {
    return `${this.#root}/streams/`;
  }
  get nodes(): string {
    return `${this.#root}/nodes/`;
  }
  node(node: string): string {
    return `${this.nodes}${node}`;
  }
  /** Prefix of the stream's candidates. */
  leaders(stream: string): string {
    return `${this.streams}${stream}/leader/`;
  }
  /** `lease`: in hex. */
  leader(stream: string, lease: string): string {
    return `${this.leaders(stream)}${lease}`;
  }
  cursor(stream: string): string {
    return `${this.streams}${stream}/cursor`;
  }
  archive(stream: string): string {
    return `${this.streams}${stream}/archive`;
  }
  generation(stream: string): string {
    return `${this.streams}${stream}/generation`;
  }
  secret(stream: string): string {
    return `${this.streams}${stream}/secret`;
  }
  requests(stream: string): string {
    return `${this.streams}${stream}/requests/`;
  }

  /** Prefix of what operators changed of the bandwidth limits. */
  get limits(): string {
    return `${this.#root}/limits/`;
  }
  limit(id: string): string {
    return `${this.limits}${id}`;
  }

  /** `streams/orders/leader/1f` is `{stream: 'orders', kind: 'leader'}`. */
  parse(key: string): { stream: string; kind: string } | null {
    if (!key.startsWith(this.streams)) return null;
    const [stream, kind] = key.slice(this.streams.length).split('/');
    return stream && kind ? { stream, kind } : null;
  }
}
