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
  /** Those who wait or owe. */
  readonly users: Set<User>;
}

/** One of those who share a class evenly. */
interface User {
  readonly of: Class;
  readonly queue: Waiter[];
  /** Bytes that were let pass and that the link has not carried yet. */
  debt: number;
}

/**
 * A link that classes share: each has its guaranteed rate while it wants it, and what others leave unused is lent at once
 * in proportion to the guarantees. Has no clock of its own; each `nowMs` is monotonic, milliseconds.
 *
 * What passes becomes the debt of its user, and the link pays all debts at the same time, each at its part of the rate.
 * A user goes on while it is less than a burst of its own part in debt, or all together less than a burst of the link. So
 * a chunk of any size passes at once, whole, is paid for before its user's next, and holds up nobody else. Over any time
 * no more passes than the link carries, two bursts, and a chunk of each user and one more.
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
    for (const user of this.#users()) user.debt *= part;
    this.#rates = rates;
    this.advance(nowMs);
  }

  user(className: string): User {
    let of = this.#classes.get(className);
    if (!of) {
      of = { name: className, users: new Set() };
      this.#classes.set(className, of);
    }
    return { of, queue: [], debt: 0 };
  }

  /** Takes its place behind what the user waits for already; `advance` lets it pass. */
  ask(user: User, waiter: Waiter): void {
    user.queue.push(waiter);
    user.of.users.add(user);
  }

  /** As if it had never asked. */
  leave(user: User, waiter: Waiter): void {
    const place = user.queue.indexOf(waiter);
    if (place >= 0) user.queue.splice(place, 1);
    dropIdle(user);
  }

  /** Lets pass whoever may now. */
  advance(nowMs: number): void {
    this.#pay(nowMs);
    for (let next = this.#next(); next !== null; next = this.#next()) this.#pass(next);
  }

  /** From the last `advance` until another is of use, at the latest; Infinity while nobody waits. */
  get nextMs(): number {
    const rates = this.#rates;
    const users = this.#users();
    if (rates === null || !users.some(isWaiting)) return Number.POSITIVE_INFINITY;
    const times = [(debtOf(users) - burst(rates.link)) / (rates.link / 1000)];
    for (const [user, speed] of this.#speeds()) {
      if (speed <= 0) continue;
      times.push(user.debt / speed); // then others are paid faster
      if (isWaiting(user)) times.push((user.debt - burst(this.#part(user))) / speed);
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
      for (const [user, speed] of speeds) {
        user.debt -= speed * stepMs;
        if (user.debt < NOTHING) user.debt = 0;
        dropIdle(user);
      }
      leftMs -= stepMs;
    }
  }

  /** Bytes a millisecond at which the debt of each user who has any is paid. */
  #speeds(): Map<User, number> {
    const link = (this.#rates?.link ?? 0) / 1000;
    const owing = [...this.#classes.values()]
      .map((one) => ({ part: this.#partOf(one), users: [...one.users].filter(({ debt }) => debt > 0) }))
      .filter(({ users }) => users.length > 0);
    const all = owing.reduce((sum, { part }) => sum + part, 0);
    const speeds = owing.flatMap(({ part, users }) => {
      const speed = link * (all > 0 ? part / all : 1 / owing.length);
      return users.map((user) => [user, speed / users.length] as const);
    });
    return new Map(speeds);
  }

  /** What a class has when all want something: its guarantee, or an even part of what is not reserved. */
  #partOf({ name }: Class): number {
    const { link, guaranteed } = this.#rates ?? { link: 0, guaranteed: {} };
    if (Object.hasOwn(guaranteed, name)) return guaranteed[name]!;
    const reserved = Object.values(guaranteed).reduce((sum, rate) => sum + rate, 0);
    const others = [...this.#classes.values()].filter(
      (one) => one.users.size > 0 && !Object.hasOwn(guaranteed, one.name),
    );
    return Math.max(0, link - reserved) / Math.max(1, others.length);
  }

  #part({ of }: User): number {
    return this.#partOf(of) / Math.max(1, of.users.size);
  }

  /** Of those who may go on the one that is least in debt for its part. */
  #next(): User | null {
    const rates = this.#rates;
    const users = this.#users();
    const waiting = users.filter(isWaiting);
    if (rates === null) return waiting[0] ?? null;
    const room = debtOf(users) <= burst(rates.link) + NOTHING;
    const owed = waiting.map((user) => ({ user, debt: user.debt, part: this.#part(user) }));
    const next = owed
      .filter(({ debt, part }) => room || debt <= burst(part) + NOTHING)
      .sort((a, b) => a.debt / Math.max(a.part, NOTHING) - b.debt / Math.max(b.part, NOTHING));
    return next[0]?.user ?? null;
  }

  #pass(user: User): void {
    const { bytes, pass } = user.queue.shift()!;
    if (this.#rates !== null) user.debt += bytes;
    dropIdle(user);
    pass();
  }

  #users(): User[] {
    return [...this.#classes.values()].flatMap(({ users }) => [...users]);
  }
}

const isWaiting = ({ queue }: User) => queue.length > 0;
const debtOf = (users: readonly User[]) => users.reduce((sum, { debt }) => sum + debt, 0);
const burst = (rate: number) => (rate * BURST_MS) / 1000;

function dropIdle(user: User): void {
  if (user.debt === 0 && !isWaiting(user)) user.of.users.delete(user);
}
