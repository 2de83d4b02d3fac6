import type { ClassName } from '../core/limits.ts';

/** One user's part in what may be sent to stores. */
export interface Share {
  /** Resolves when so many bytes may be sent; throws the signal's reason, and has then taken nothing. */
  take(bytes: number, signal: AbortSignal): Promise<void>;
}

/** Who may send how much: log shipping and the classes of copies, of all streams of a daemon together. */
export interface Governor {
  /** Streams share evenly what log shipping has. */
  shipping(stream: string): Share;
  /** Another user of a class, who shares evenly with its others. */
  of(name: ClassName): Share;
}
