/** What may be sent, in bytes a second. */
export interface Rates {
  readonly link: number;
  /**
   * What each class is always given when it wants it; together no more than the link. Classes that are not in it share
   * what nobody has reserved.
   */
  readonly guaranteed: Readonly<Record<string, number>>;
}

/** How far those who wait may be ahead of the link, so that timers which come late leave no capacity unused. */
export const BURST_MS = 100;
/** What rounding may leave of a debt, bytes. */
const NOTHING = 1e-3;

export interface Waiter {
  readonly bytes: number;
  /** Called once, when the bytes may be sent. */
  readonly pass: () => void;
}

interface Class {
  readonly name: string;
  /** Bytes that were let pass and that the link has not carried yet. */
  debt: number;
  readonly waiting: Set<User>;
  /** Where the user stands who was served last, bytes. */
  served: number;
}

/** One of those who share a class evenly. */
interface User {
  readonly of: Class;
  readonly queue: Waiter[];
  /** Bytes that it was given, counted on from where the class stood when it last began to wait. */
  served: number;
}

/**
 * A link that classes share: each has its guaranteed rate while it wants it, and what others leave unused is lent at once
 * in proportion to the guarantees. Has no clock of its own; each `nowMs` is monotonic, milliseconds.
 *
 * What passes becomes the debt of its class, and the link pays all debts at the same time, each class's at its part of
 * the rate. Whoever waits passes while its class is less than a burst of its own part in debt, or all classes together
 * less than a burst of the link. So a chunk of any size passes at once, whole, and is paid for before the next.
 * Over any time no more passes than the link carries, two bursts, and a chunk of each class and one more.
 */
export class Link {
  readonly #classes = new Map<string, Class>();
  #rates: Rates | null = null;
  #paidMs: number;

  constructor(nowMs: number) {
    this.#paidMs = nowMs;
  }

  /** Null: everything passes. What is in debt stays so for no longer than under the old rates. */
  set(rates: Rates | null, nowMs: number): void {
    this.#pay(nowMs);
    const part = rates === null || this.#rates === null ? 0 : Math.min(1, rates.link / this.#rates.link);
    for (const one of this.#classes.values()) one.debt *= part;
    this.#rates = rates;
    this.advance(nowMs);
  }

  user(className: string): User {
    let of = this.#classes.get(className);
    if (!of) {
      of = { name: className, debt: 0, waiting: new Set(), served: 0 };
      this.#classes.set(className, of);
    }
    return { of, queue: [], served: 0 };
  }

  /** Takes its place behind what the user waits for already; `advance` lets it pass. */
  ask(user: User, waiter: Waiter): void {
    if (user.queue.push(waiter) > 1) return;
    user.of.waiting.add(user);
    // Time without a wish is no credit.
    user.served = Math.max(user.served, user.of.served);
  }

  /** As if it had never asked. */
  leave(user: User, waiter: Waiter): void {
    const place = user.queue.indexOf(waiter);
    if (place >= 0) user.queue.splice(place, 1);
    if (user.queue.length === 0) user.of.waiting.delete(user);
  }

  /** Lets pass whoever may now. */
  advance(nowMs: number): void {
    this.#pay(nowMs);
    for (let next = this.#next(); next !== null; next = this.#next()) this.#pass(next);
  }

  /** From the last `advance` until another is of use, at the latest; Infinity while nobody waits. */
  get nextMs(): number {
    const rates = this.#rates;
    if (rates === null || this.#wanting().length === 0) return Number.POSITIVE_INFINITY;
    const speeds = this.#speeds();
    const total = this.#total();
    const times = [(total - burst(rates.link)) / (rates.link / 1000)];
    for (const [{ debt, waiting, name }, speed] of speeds) {
      if (speed <= 0) continue;
      times.push(debt / speed); // then others are paid faster
      if (waiting.size > 0) times.push((debt - burst(this.#part(name))) / speed);
    }
    return Math.max(0, Math.min(...times.filter((ms) => ms > 0)));
  }

  #pay(nowMs: number): void {
    let leftMs = nowMs - this.#paidMs;
    this.#paidMs = Math.max(nowMs, this.#paidMs);
    while (leftMs > 0) {
      const speeds = [...this.#speeds()];
      if (speeds.length === 0) return;
      const stepMs = Math.min(leftMs, ...speeds.map(([{ debt }, speed]) => debt / speed));
      for (const [one, speed] of speeds) {
        one.debt -= speed * stepMs;
        if (one.debt < NOTHING) one.debt = 0;
      }
      leftMs -= stepMs;
    }
  }

  /** Bytes a millisecond at which the debt of each class that has any is paid. */
  #speeds(): Map<Class, number> {
    const owing = [...this.#classes.values()].filter(({ debt }) => debt > 0);
    const parts = owing.map(({ name }) => this.#part(name));
    const all = parts.reduce((sum, part) => sum + part, 0);
    const link = (this.#rates?.link ?? 0) / 1000;
    return new Map(owing.map((one, n) => [one, link * (all > 0 ? parts[n]! / all : 1 / owing.length)]));
  }

  /** What a class has when all want something: its guarantee, or of what is left an even part. */
  #part(name: string): number {
    const { link, guaranteed } = this.#rates!;
    if (Object.hasOwn(guaranteed, name)) return guaranteed[name]!;
    const reserved = Object.values(guaranteed).reduce((sum, rate) => sum + rate, 0);
    const others = [...this.#classes.values()].filter(
      ({ name: other, debt, waiting }) => !Object.hasOwn(guaranteed, other) && (debt > 0 || waiting.size > 0),
    );
    return Math.max(0, link - reserved) / Math.max(1, others.length);
  }

  /** Of the classes that may go on the one that is least in debt for its part, and of its users the one that had least. */
  #next(): User | null {
    const rates = this.#rates;
    let wanting = this.#wanting();
    if (rates !== null) {
      const room = this.#total() <= burst(rates.link) + NOTHING;
      wanting = wanting.filter(({ name, debt }) => room || debt <= burst(this.#part(name)) + NOTHING);
    }
    const owes = ({ name, debt }: Class) => (rates === null ? 0 : debt / Math.max(this.#part(name), NOTHING));
    const chosen = least(wanting, owes);
    return chosen && least([...chosen.waiting], ({ served }) => served);
  }

  #pass(user: User): void {
    const waiter = user.queue.shift()!;
    if (user.queue.length === 0) user.of.waiting.delete(user);
    user.of.served = Math.max(user.of.served, user.served);
    user.served += waiter.bytes;
    if (this.#rates !== null) user.of.debt += waiter.bytes;
    waiter.pass();
  }

  #wanting(): Class[] {
    return [...this.#classes.values()].filter(({ waiting }) => waiting.size > 0);
  }

  #total(): number {
    return this.#classes.values().reduce((sum, { debt }) => sum + debt, 0);
  }
}

const burst = (rate: number) => (rate * BURST_MS) / 1000;

function least<T>(all: readonly T[], of: (one: T) => number): T | null {
  let found: T | null = null;
  for (const one of all) if (found === null || of(one) < of(found)) found = one;
  return found;
}
