/** A valid config; every key that this version knows is in it, the optional ones commented out with their defaults. */
export const EXAMPLE = `# Shipmate's configuration. Names in it are lower-case; sizes and times need their unit (8MiB, 20ms, 5s).
# "\${NAME}" in a text stands for an environment variable, "$$" for a plain dollar sign.

# This twin's name, unique among the twins. By default the host's name.
# node: db-1

# The twins' shared name space in etcd and on the status page.
cluster: acme

# Archive ids and secrets of this host; mode 0700.
# stateDir: /var/lib/shipmate

# Who leads a stream is settled in etcd. Without etcd, for one daemon alone: "coordination: solo".
coordination:
  etcd:
    endpoints: [http://127.0.0.1:2379]
    # Lease of a daemon: how long after its death another takes over. From 2s to 5m, whole seconds.
    # ttl: 5s
    # For https endpoints.
    # tls: { ca: /etc/shipmate/ca.pem, cert: /etc/shipmate/client.pem, key: /etc/shipmate/client-key.pem }
    # username: shipmate
    # passwordFile: /etc/shipmate/etcd-password

# What a master does when its lease runs out while etcd cannot be reached: it ships on (continue), since only a
# successor that reaches both etcd and the store can end its term, or it stops, and the database's disk fills (stop).
# onEtcdLoss: continue

# Where archives lie.
stores:
  main:
    type: file
    # Must exist: it is never created, so that a lost mount is seen.
    path: /mnt/backup
    # A directory below it.
    # prefix: prod
  # Of buckets and containers, quota is how much the archives there may take, for plans that choose by room; by default
  # there is no limit.
  # A bucket of Google Cloud Storage. It must exist; the daemon needs storage.objects.create, .get and .list there.
  # All but type and bucket may be left out: storageClass is by default the bucket's (or NEARLINE, COLDLINE, ARCHIVE),
  # credentials are by default the environment's, and an endpoint with http is an emulator.
  # cloud: { type: gcs, bucket: acme-logs, prefix: prod, storageClass: STANDARD, keyFile: /etc/shipmate/gcs.json, apiEndpoint: "https://storage.googleapis.com", quota: 10TiB }
  # A bucket of S3, or of a server that speaks its protocol and honours If-None-Match (shipmate check finds out). Region
  # and credentials are by default the environment's.
  # aws: { type: s3, bucket: acme-logs, prefix: prod, region: eu-central-1, storageClass: STANDARD_IA, endpoint: "https://s3.example.com", forcePathStyle: true, quota: 10TiB }
  # A container of Azure Blob Storage: of an account, or of an endpoint or a connectionStringFile instead.
  # azure: { type: azure, container: logs, prefix: prod, account: acme, accessTier: Cool, quota: 10TiB }

# Which stores a stream goes to, under a name. A stream may name a store directly instead.
# plans:
#   gold:
#     primary: main
#     # The archive is copied to these, or to count of them: those in order first, then those with the most room.
#     copies: [cloud, aws, azure]
#     count: 2
#     order: [aws]
#     # The first copy is due so much later, the second twice as much, and so on.
#     delay: 15m
#     # How many stores, the primary among them, must hold what is shipped before the database may let go of it.
#     ack: 1
#     # slow, standard or fast: what "limits" below gives to copies.
#     class: standard

# What may be sent to stores, by this daemon; without this, nothing is held back. Log shipping and the classes of copies
# are given at least their guarantees when they want them, and what is not used of these is lent out.
# limits:
#   link: 1Gbit/s
#   shipping: 50%
#   classes: { slow: 5MiB/s, standard: 10MiB/s, fast: 20MiB/s }
#   # What is other at times of the day, in this host's time zone.
#   schedule:
#     - { from: "22:00", to: "06:00", shipping: 20%, classes: { slow: 20MiB/s } }

# The logs that are shipped: of databases, and any directories of files.
streams:
  orders:
    source:
      # mariadb or mysql
      type: mariadb
      # Where the binlogs are.
      dir: /var/lib/mysql
      # The index file; found in dir by default.
      # index: binlog.index
      # For what only SQL knows: whether the server is writable, whether it replicates, when it purges.
      # url: "mariadb://shipmate:\${SHIPMATE_DB_PASSWORD}@127.0.0.1:3306"
    # This, or "plan: gold".
    store: main
    # How much is shipped at once, and how long bytes wait for more; the first ones after a pause leave at once.
    # chunk: { maxBytes: 8MiB, maxDelay: 1s }
    # Encrypts what is shipped, for whoever has the private key to one of these public ones (age-keygen makes both).
    # encrypt: { recipients: [age1...] }
    # What "shipmate prune" leaves in the stores: all that any of these asks for. Without it, everything.
    # keep: { age: 30d, segments: 10, daily: 7, weekly: 4, monthly: 12 }

  # A PostgreSQL server, primary or standby.
  billing:
    source:
      type: postgres
      # The data directory; the WAL is in pg_wal below it.
      dir: /var/lib/postgresql/15/main
      # The server that runs there: up to where its WAL is safe. A user with pg_monitor and REPLICATION.
      url: postgresql://shipmate@/postgres?host=/run/postgresql
      # The physical replication slot that keeps WAL until it is shipped; "run" makes it.
      # slot: shipmate_billing
    store: main

  # A directory of files that are only ever appended to.
  audit:
    source:
      type: files
      dir: /var/log/audit
      # Or redis-aof, for the append-only directory of Redis; its manifest tells what the next four keys tell otherwise.
      # layout: plain
      # Which files, by their names; and whether the numbers in these are their order, or the names as they are (name).
      # match: "*"
      # order: number
      # The file that is written, where rotation renames it.
      # live: audit.log
      # Whether bytes are shipped as they come, or only whole lines (line).
      # cut: byte
      # How long a file must not have grown, once another follows it, to count as ended.
      # settle: 5s
      # Whether all twins see this very directory. Otherwise a twin of another host never takes over.
      # shared: false
    store: main

# HTTP for metrics, health and status; it only reads. By default off.
admin:
  listen: 127.0.0.1:9187

# The least important lines that the daemon logs: debug, info, warn or error.
# log: { level: info }
`;
