import { readFile } from 'node:fs/promises';

const ETCD = 'http://127.0.0.1:2379';
const ASK_MS = 1_000;

/** An etcd on this host; null: none answers. */
export async function findEtcd(): Promise<string | null> {
  try {
    const answer = await fetch(`${ETCD}/version`, { signal: AbortSignal.timeout(ASK_MS) });
    return (await answer.text()).includes('etcdserver') ? ETCD : null;
  } catch {
    return null;
  }
}

const SHARED = /^(nfs4?|cifs|smb3|ceph|glusterfs|fuse\.(?!snapfuse|lxcfs|portal).*|9p|virtiofs)$/;
const PLACES = /^\/(mnt|media|srv|backup|data)(\/|$)/;

/** Mounted directories that a file store could be in: those of other hosts first, then disks of their own. */
export async function findMounts(): Promise<string[]> {
  return mountsIn(await readFile('/proc/self/mountinfo', 'utf8').catch(() => ''));
}

/** As /proc/self/mountinfo has them. */
export function mountsIn(mountinfo: string): string[] {
  const mounts = mountinfo.split('\n').flatMap((line) => {
    const [place = '', kind = ''] = line.split(' - ');
    const path = place
      .split(' ')[4]
      ?.replaceAll(/\\(\d{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)));
    return path === undefined ? [] : [{ path, type: kind.split(' ')[0] ?? '' }];
  });
  const shared = mounts.filter(({ type, path }) => SHARED.test(type) && path !== '/');
  const disks = mounts.filter(({ type, path }) => /^(ext[234]|xfs|btrfs|zfs)$/.test(type) && PLACES.test(path));
  return [...new Set([...shared, ...disks].map(({ path }) => path))];
}
