import { dirname } from 'node:path';

/** What the package's unit lacks for this config, and what its user must own and read. */
export interface UnitPreparation {
  /** A drop-in of the unit, and all that it holds. */
  readonly file: string;
  readonly lines: readonly string[];
  /** Commands of a shell, as root. */
  readonly shell: readonly string[];
}

/** Whom the unit runs as, and whose group may enter /etc/shipmate. */
const PACKAGED = 'shipmate';

export interface UnitOptions {
  /** System user that the daemon runs as, and the name of its group. */
  readonly user: string;
  readonly group: string;
  /** Null: not known here. */
  readonly stateDir: string | null;
  /** Paths of the stores that are directories. */
  readonly directories: readonly string[];
}

/** Null: the unit does as it is; or the daemon is root's, as where there is no package. */
export function unitPreparationOf({ user, group, stateDir, directories }: UnitOptions): UnitPreparation | null {
  const isOther = user !== PACKAGED;
  if (user === 'root' || (!isOther && directories.length === 0)) return null;
  const writable = [...new Set(directories.map(seenWhenMountedAnew))].map(quoted);
  const lines = [
    ...(isOther ? [`User=${user}`, `Group=${group}`, `SupplementaryGroups=${PACKAGED}`] : []),
    ...(writable.length > 0 ? [`ReadWritePaths=${writable.join(' ')}`] : []),
  ];
  const owned = [...(isOther && stateDir !== null ? [stateDir] : []), ...directories].map(quoted);
  return {
    file: '/etc/systemd/system/shipmate.service.d/local.conf',
    lines: ['[Service]', ...lines],
    shell: [
      ...(isOther ? [`adduser ${user} ${PACKAGED}`] : []),
      ...(owned.length > 0 ? [`chown ${user}: ${owned.join(' ')}`] : []),
      'systemctl daemon-reload',
    ],
  };
}

/** A mount point that is named itself keeps what was mounted there when the daemon started; "/" would open all there is. */
function seenWhenMountedAnew(path: string): string {
  const above = dirname(path);
  return above === '/' ? path : above;
}

const quoted = (path: string) => (/\s/.test(path) ? `"${path}"` : path);
