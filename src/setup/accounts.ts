import { readFile } from 'node:fs/promises';
import { userInfo } from 'node:os';
import type { Names } from './plan.ts';

export interface Accounts extends Names {
  /** The user's group; null: there is no such user. */
  groupOf(user: string): number | null;
}

/** The host's own users and groups; those of a directory service show as numbers. */
export async function readAccounts(): Promise<Accounts> {
  const [users, groups] = await Promise.all(['/etc/passwd', '/etc/group'].map(rowsOf));
  const nameOf = (rows: readonly string[][], id: number) =>
    rows.find((row) => row[2] === String(id))?.[0] ?? String(id);
  return {
    user: (uid) => nameOf(users!, uid),
    group: (gid) => nameOf(groups!, gid),
    groupOf(user) {
      const gid = users!.find(([name]) => name === user)?.[3];
      return gid === undefined ? null : Number(gid);
    },
  };
}

const rowsOf = async (file: string) =>
  (await readFile(file, 'utf8').catch(() => '')).split('\n').map((line) => line.split(':'));

export function currentUser(): string {
  try {
    return userInfo().username;
  } catch {
    return String(process.getuid?.()); // a user without an entry in passwd
  }
}
