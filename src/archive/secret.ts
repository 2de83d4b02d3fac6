import { randomBytes } from 'node:crypto';
import type { ArchiveMemory } from '../coordination/coordination.ts';
import { ShipmateError } from '../errors.ts';

/** Where a stream's secret is remembered: what the twins share (etcd), and what this host has (stateDir). */
export interface SecretPlaces {
  readonly stream: string;
  readonly memories: readonly [shared: ArchiveMemory, local: ArchiveMemory];
}

const SECRET_BYTES = 32;

/**
 * The secret that keys the witnesses of a stream's encrypted chunks. It decrypts nothing; with it, and the store, guesses
 * of a chunk's bytes could be tried. Remembered like the archive's id, and looked up when it is first needed: a twin
 * whose own config encrypts nothing meets encrypted chunks of another.
 */
export class WitnessSecret {
  readonly #places: SecretPlaces;
  #known: string | null = null;

  constructor(places: SecretPlaces) {
    this.#places = places;
  }

  /** Throws SECRET_LOST where nobody remembers one, SECRET_CONFLICT where two are remembered. */
  async read(): Promise<string> {
    this.#known ??= await this.#recall();
    if (this.#known === null) throw lost(this.#places.stream);
    return this.#known;
  }

  /**
   * The same, and a new one where nobody remembers one, unless chunks are under another (`isUsed`). Both places know it
   * then.
   */
  async agree({ isUsed = async () => false }: { isUsed?: () => Promise<boolean> } = {}): Promise<void> {
    const remembered = await this.#recall();
    if (remembered === null && (await isUsed())) throw lost(this.#places.stream);
    await this.#keep(remembered ?? randomBytes(SECRET_BYTES).toString('hex'));
  }

  /** Tells it again to who has forgotten it, if it is known here. */
  async remind(): Promise<void> {
    const { stream, memories } = this.#places;
    for (const memory of memories) {
      if (this.#known === null) return;
      const kept = (await memory.secret(stream)) ?? (await memory.keepSecret(stream, this.#known));
      if (kept !== this.#known) throw conflict(stream);
    }
  }

  async #keep(offered: string): Promise<void> {
    const { stream, memories } = this.#places;
    const [shared, local] = memories;
    const agreed = await shared.keepSecret(stream, offered);
    if ((await local.keepSecret(stream, agreed)) !== agreed) throw conflict(stream);
    this.#known = agreed;
  }

  async #recall(): Promise<string | null> {
    const { stream, memories } = this.#places;
    const [shared, local] = await Promise.all(memories.map((memory) => memory.secret(stream)));
    if (shared && local && shared !== local) throw conflict(stream);
    return shared ?? local ?? null;
  }
}

function lost(stream: string): ShipmateError {
  return new ShipmateError(
    `stream ${stream}: the archive is encrypted, but neither etcd nor this host's stateDir has the secret of its witnesses`,
    {
      code: 'SECRET_LOST',
      hint:
        "another twin's stateDir has it as well: start that twin, or put etcd's backup back. If it is gone for good: " +
        `shipmate adopt ${stream}; the log then goes on after an accepted gap, and all that was shipped can be restored`,
    },
  );
}

function conflict(stream: string): ShipmateError {
  return new ShipmateError(`stream ${stream}: etcd and this host's stateDir have different secrets for its witnesses`, {
    code: 'SECRET_CONFLICT',
    hint:
      "this host's stateDir or the etcd cluster is of another deployment. If etcd is right, remove " +
      `local/secrets/${stream}.json in the stateDir`,
  });
}
