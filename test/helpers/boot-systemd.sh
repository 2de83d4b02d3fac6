#!/bin/sh
# boot-systemd.sh CHECKOUT FOLDER: becomes a systemd that knows nothing but the units of deploy/systemd, in namespaces of its own
# (as root, by unshare with --mount --pid --fork --uts --ipc --cgroup --net). What it writes is gone when it ends. FOLDER holds
# shipmate.yaml, drop-ins in drop-ins/, and a MariaDB's data directory in mysql/.
set -e
checkout=$1 folder=$2

mount --make-rprivate /
mount -t proc proc /proc

# A host to install on: everything of this one, and a layer above it for what is changed.
mount -t tmpfs tmpfs /mnt
for directory in etc usr/bin usr/lib/systemd var/lib var/cache; do
  layer=/mnt/layers/$directory
  mkdir -p "$layer/new" "$layer/work"
  mount -t overlay overlay -o "lowerdir=/$directory,upperdir=$layer/new,workdir=$layer/work" "/$directory"
done
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /opt
mkdir /opt/shipmate /mnt/backup
mount --bind "$checkout" /opt/shipmate
ln -sf /opt/shipmate/bin/shipmate /usr/bin/shipmate

# None of this host's units, for they would change its kernel's settings: stubs of the targets, and the journal.
mv /usr/lib/systemd/system /usr/lib/systemd/system.of-host
rm -rf /usr/lib/systemd/system-generators /etc/systemd/system
mkdir -p /usr/lib/systemd/system /etc/systemd/system/shipmate.service.d
units=/usr/lib/systemd/system
for target in sysinit basic shutdown network-online remote-fs local-fs sockets timers paths slices umount final; do
  printf '[Unit]\nDefaultDependencies=no\n' >$units/$target.target
done
printf '[Unit]\nWants=systemd-journald.service shipmate.service\n' >$units/multi-user.target
cp $units.of-host/systemd-journald.socket $units.of-host/systemd-journald-dev-log.socket $units/
sed '/^Sockets=/d' $units.of-host/systemd-journald.service >$units/systemd-journald.service

# What the installation in docs/systemd.md does.
id shipmate >/dev/null 2>&1 || useradd --system --no-create-home shipmate
cp "$checkout"/deploy/systemd/*.service /etc/systemd/system/
cp "$folder"/drop-ins/*.conf /etc/systemd/system/shipmate.service.d/
install -d -m 755 /etc/shipmate
install -m 640 -g shipmate "$folder/shipmate.yaml" /etc/shipmate/
chown shipmate /mnt/backup

# As Debian has it: the server's own user and its group, nobody else.
mkdir -p /var/lib/mysql
mount --bind "$folder/mysql" /var/lib/mysql
chown -R mysql:mysql /var/lib/mysql
chmod -R u=rwX,g=rX,o= /var/lib/mysql

# Control groups of its own, of the kind that this host has.
cmdline=
if [ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ]; then
  umount -R /sys/fs/cgroup
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
else
  umount -R /sys/fs/cgroup
  mount -t tmpfs tmpfs /sys/fs/cgroup
  mkdir /sys/fs/cgroup/systemd
  mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
  cmdline='systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1'
fi
exec env -i PATH="$PATH" container=test SYSTEMD_PROC_CMDLINE="$cmdline" SYSTEMD_LOG_TARGET=console \
  /usr/lib/systemd/systemd --system --unit=multi-user.target --show-status=0
