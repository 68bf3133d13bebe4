#!/usr/bin/env bash
# Starts a real SLURM cluster on this machine: 4 virtual nodes with 2 fake GPUs each, accounting, memory limits,
# preemption. For Debian 12 and distributions based on it, as root; systemd is not needed. Does nothing if it is running.
#
#   up.sh            start it (and install the Debian packages that it needs)
#   up.sh --fresh    start it without earlier jobs and their accounting; the cluster must be stopped
#
# Environment: AOT_DEVCLUSTER (its folder), AOT_DEVCLUSTER_NODES=4, _CPUS=4, _MEMORY_MB=4000, _GPUS=2 (per node).
set -euo pipefail
HOME_DIR=${AOT_DEVCLUSTER:-/var/tmp/aot-devcluster}
NODES=${AOT_DEVCLUSTER_NODES:-4} CPUS=${AOT_DEVCLUSTER_CPUS:-4} GPUS=${AOT_DEVCLUSTER_GPUS:-2}
MEMORY_MB=${AOT_DEVCLUSTER_MEMORY_MB:-4000}
MARK='# written by launch/devcluster/up.sh'
OURS="$MARK|# written by slurm-up.sh"      # files that may be overwritten
PACKAGES='munge slurmctld slurmd slurm-client slurmdbd slurm-wlm-mysql-plugin mariadb-server-core'

say() { echo "devcluster: $*"; }
die() { echo "devcluster: $*" >&2; exit 1; }
wait_for() { # wait_for WHAT SECONDS COMMAND...
  local what=$1 seconds=$2 i; shift 2
  for ((i = 0; i < seconds * 10; i++)); do "$@" >/dev/null 2>&1 && return 0; sleep .1; done
  die "$what did not start within $seconds s; the logs are in $HOME_DIR/log"
}
is_alive() { # is_alive PIDFILE COMMAND: also compares the command, because a pid may have been reused
  local pid; pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ]
}
num_nodes() { sinfo -h -N -p debug -t "$1" -o %N 2>/dev/null | sort -u | wc -l; }
all_idle() { [ "$(num_nodes idle)" = "$NODES" ]; }
answers() { timeout 10 scontrol ping 2>/dev/null | grep -q UP && [ "$(num_nodes idle,alloc,mix,comp)" -gt 0 ]; }

[ "$(id -u)" = 0 ] || die "must run as root: sudo make system"
command -v apt-get >/dev/null || die 'needs Debian or a distribution based on it: apt-get was not found'
for file in slurm.conf slurmdbd.conf gres.conf cgroup.conf; do
  [ ! -e "/etc/slurm/$file" ] || head -1 "/etc/slurm/$file" | grep -qE "$OURS" ||
    die "/etc/slurm/$file was not written by this script, so this machine already has a SLURM configuration; nothing was changed"
done

missing=()
for package in $PACKAGES; do
  dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q ^ii || missing+=("$package")
done
mkdir -p "$HOME_DIR"/{run,log,dev,db}
if [ ${#missing[@]} -gt 0 ]; then
  say "installing ${missing[*]}"
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"; } \
    >"$HOME_DIR/log/apt.log" 2>&1 || die "apt-get failed; see $HOME_DIR/log/apt.log"
fi
if answers; then say 'running'; sinfo; exit 0; fi

# --- configuration ------------------------------------------------------------------------------------------------
erase_state() { rm -rf /var/spool/slurmctld/* /var/spool/slurmd.n*/* "$HOME_DIR/db" "$HOME_DIR"/log/slurm*.log; }
if [ "${1:-}" = --fresh ]; then
  is_alive "$HOME_DIR/db/mariadbd.pid" mariadbd && die '--fresh needs a stopped cluster: run launch/devcluster/down.sh first'
  erase_state
fi
mkdir -p "$HOME_DIR/db" /var/spool/slurmctld
for ((i = 1; i <= NODES; i++)); do mkdir -p "/var/spool/slurmd.n$i"; done
# SLURM sets CUDA_VISIBLE_DEVICES only for character devices; nothing opens these.
for ((i = 0; i < GPUS; i++)); do [ -c "$HOME_DIR/dev/nvidia$i" ] || mknod "$HOME_DIR/dev/nvidia$i" c 195 "$i"; done
is_cgroup() { [ "$(stat -fc %T "/sys/fs/cgroup/$1" 2>/dev/null)" = cgroupfs ] && [ -w "/sys/fs/cgroup/$1" ]; }
if is_cgroup memory && is_cgroup freezer; then
  LIMITS='ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
JobAcctGatherType=jobacct_gather/cgroup'
else # no version 1 control groups: slurmd checks the memory of the tasks every second
  LIMITS='ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherParams=OverMemoryKill'
fi
cat >/etc/slurm/slurm.conf <<CONF
$MARK
ClusterName=devcluster
SlurmctldHost=localhost
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
# also the delay before a requeued job starts: default 120, minimum 5
AuthInfo=cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
MailProg=/bin/true
MpiDefault=none
$LIMITS
JobAcctGatherFrequency=task=1
GresTypes=gpu
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=256
# start pending jobs immediately
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=100000
# a job in "high" preempts one in "debug", which first receives its --signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
KillWait=2
SlurmdTimeout=10
SlurmctldTimeout=30
ReturnToService=2
# job ids are never reused, not even after --fresh
FirstJobId=$(($(date +%s) % 60000000 + 1))
SlurmctldPort=6817
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd.%n
SlurmctldPidFile=$HOME_DIR/run/slurmctld.pid
SlurmdPidFile=$HOME_DIR/run/slurmd.%n.pid
SlurmctldLogFile=$HOME_DIR/log/slurmctld.log
SlurmdLogFile=$HOME_DIR/log/slurmd.%n.log
# nodes may claim more than this machine has
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort=6819
NodeName=n[1-$NODES] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[7001-$((7000 + NODES))] CPUs=$CPUS RealMemory=$MEMORY_MB Gres=gpu:$GPUS
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
CONF
cat >/etc/slurm/gres.conf <<CONF
$MARK
NodeName=n[1-$NODES] Name=gpu File=$HOME_DIR/dev/nvidia[0-$((GPUS - 1))]
CONF
cat >/etc/slurm/cgroup.conf <<CONF
$MARK
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
CgroupAutomount=no
ConstrainCores=no
ConstrainDevices=no
ConstrainRAMSpace=yes
ConstrainSwapSpace=no
CONF
(umask 077 && cat >/etc/slurm/slurmdbd.conf <<CONF
$MARK
AuthType=auth/munge
DbdHost=localhost
DbdPort=6819
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct
LogFile=$HOME_DIR/log/slurmdbd.log
PidFile=$HOME_DIR/run/slurmdbd.pid
CONF
)

# --- daemons ------------------------------------------------------------------------------------------------------
if ! munge -n 2>/dev/null | unmunge >/dev/null 2>&1; then
  install -d -o munge -g munge -m 0755 /run/munge
  rm -f /run/munge/munge.socket.2 /run/munge/munge.socket.2.lock
  su -s /bin/sh munge -c /usr/sbin/munged
  wait_for munged 10 sh -c 'munge -n | unmunge'
  cp /run/munge/munged.pid "$HOME_DIR/run/munged.pid" # down.sh stops munged only if this script started it
fi
start_database() { # fails as soon as the database has exited
  install -d -o slurm -g slurm -m 0700 "$HOME_DIR/db" "$HOME_DIR/db/data"
  rm -f "$HOME_DIR/db/mysql.sock" "$HOME_DIR/db/mariadbd.pid" "$HOME_DIR/db/error.log"
  # Without grant tables, slurmdbd can use an empty data folder.
  setsid /usr/sbin/mariadbd --no-defaults --user=slurm --datadir="$HOME_DIR/db/data" \
    --socket="$HOME_DIR/db/mysql.sock" --pid-file="$HOME_DIR/db/mariadbd.pid" --log-error="$HOME_DIR/db/error.log" \
    --skip-networking --skip-grant-tables --innodb-buffer-pool-size=64M --innodb-log-file-size=32M \
    --innodb-flush-log-at-trx-commit=0 --innodb-lock-wait-timeout=900 --performance-schema=OFF \
    </dev/null >/dev/null 2>&1 &
  local i pid=$!
  for ((i = 0; i < 1200; i++)); do
    [ -S "$HOME_DIR/db/mysql.sock" ] && [ -s "$HOME_DIR/db/mariadbd.pid" ] && return 0
    kill -0 "$pid" 2>/dev/null || return 1
    sleep .1
  done
  kill "$pid" 2>/dev/null || true
  return 1
}
database_error() { grep -F '[ERROR]' "$HOME_DIR/db/error.log" 2>/dev/null | head -1; }
if ! is_alive "$HOME_DIR/db/mariadbd.pid" mariadbd && ! start_database; then
  # After a power failure the database may not start again. The state saved by SLURM is from the same time.
  say "the accounting of the last cluster cannot be read ($(database_error)); starting without it, as --fresh does"
  erase_state
  start_database || die "mariadbd does not start: $(database_error)"
fi
if ! is_alive "$HOME_DIR/run/slurmdbd.pid" slurmdbd; then
  MYSQL_UNIX_PORT="$HOME_DIR/db/mysql.sock" slurmdbd
  wait_for slurmdbd 60 sacctmgr -n list cluster
fi
is_alive "$HOME_DIR/run/slurmctld.pid" slurmctld || slurmctld
for ((i = 1; i <= NODES; i++)); do is_alive "$HOME_DIR/run/slurmd.n$i.pid" slurmd || slurmd -N "n$i"; done
wait_for "$NODES idle nodes" 60 all_idle
wait_for accounting 30 sacct -n
say 'running'
sinfo
