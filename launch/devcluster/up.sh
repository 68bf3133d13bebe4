#!/usr/bin/env bash
# Starts a real SLURM cluster on this machine: 4 virtual nodes with 2 fake GPUs each, accounting, memory limits,
# preemption. For Debian 12 and distributions based on it, as root; systemd is not needed. Does nothing if it is running.
#
#   up.sh            start it (and install the Debian packages that it needs)
#   up.sh --fresh    start it without earlier jobs and their accounting; the cluster must be stopped
#
# A machine that has a SLURM is not touched: its configuration, wherever it is, and its daemons are looked for first.
#
# Environment: AOT_DEVCLUSTER (its folder), AOT_DEVCLUSTER_NODES=4, _CPUS=4, _MEMORY_MB=4000, _GPUS=2 (per node),
# _APT_SECONDS=600 (how long to wait for another apt), _ROOT (of the tests: where the rest of the machine is looked for).
set -euo pipefail
GIVEN_CONF=${SLURM_CONF:-}
HOME_DIR=${AOT_DEVCLUSTER:-/var/lib/aot-devcluster}
EARLIER_DIR=/var/tmp/aot-devcluster   # of earlier versions of this script, which wrote to /etc/slurm
NODES=${AOT_DEVCLUSTER_NODES:-4} CPUS=${AOT_DEVCLUSTER_CPUS:-4} GPUS=${AOT_DEVCLUSTER_GPUS:-2}
MEMORY_MB=${AOT_DEVCLUSTER_MEMORY_MB:-4000} APT_SECONDS=${AOT_DEVCLUSTER_APT_SECONDS:-600}
ROOT=${AOT_DEVCLUSTER_ROOT:-}
CONF=$HOME_DIR/etc
export SLURM_CONF=$CONF/slurm.conf
MARK='# written by launch/devcluster/up.sh'
OURS="$MARK|# written by slurm-up.sh"      # files that may be overwritten
PACKAGES='munge slurmctld slurmd slurm-client slurmdbd slurm-wlm-mysql-plugin mariadb-server-core'
SERVICES='munge slurmctld slurmd slurmdbd'

say() { echo "devcluster: $*"; }
die() { echo "devcluster: $*" >&2; exit 1; }
wait_for() { # wait_for WHAT SECONDS COMMAND...
  local what=$1 seconds=$2 i; shift 2
  for ((i = 0; i < seconds * 10; i++)); do "$@" >/dev/null 2>&1 && return 0; sleep .1; done
  die "$what did not start within $seconds s; the logs are in $HOME_DIR/log"
}
is_alive() { # is_alive PIDFILE COMMAND: also compares the command, because a pid may have been reused
  local pid; pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] && [ "$(cat "$ROOT/proc/$pid/comm" 2>/dev/null)" = "$2" ]
}
num_nodes() { sinfo -h -N -p debug -t "$1" -o %N 2>/dev/null | sort -u | wc -l; }
all_idle() { [ "$(num_nodes idle)" = "$NODES" ]; }
answers() { timeout 10 scontrol ping 2>/dev/null | grep -q UP && [ "$(num_nodes idle,alloc,mix,comp)" -gt 0 ]; }
has_accounting() { # a cluster whose slurmdbd has died answers as well
  is_alive "$1/run/slurmdbd.pid" slurmdbd && timeout 10 sacctmgr -n -P list cluster 2>/dev/null | grep -q .
}
is_ours() { # is_ours FILE: a link into our folder, or a file that an earlier version has written
  case $(readlink -f "$1") in "$(readlink -f "$HOME_DIR")"/*) return 0 ;; esac
  head -1 "$1" 2>/dev/null | grep -qE "$OURS"
}
refuse_other_slurm() {
  local place file pid comm own found
  local untouched='so this machine has a SLURM already; nothing was changed'
  if [ -n "$GIVEN_CONF" ] && [ -e "$GIVEN_CONF" ] && ! is_ours "$GIVEN_CONF"; then
    die "SLURM_CONF=$GIVEN_CONF was not written by this script, $untouched"
  fi
  for place in /etc/slurm /etc/slurm-llnl /opt/slurm/etc /usr/local/etc /usr/local/etc/slurm /usr/local/slurm/etc \
    /run/slurm/conf /var/spool/slurmd/conf-cache; do # the last two: of nodes without a configuration of their own
    for file in slurm.conf slurmdbd.conf gres.conf cgroup.conf topology.conf acct_gather.conf; do
      [ ! -e "$ROOT$place/$file" ] || is_ours "$ROOT$place/$file" ||
        die "$ROOT$place/$file was not written by this script, $untouched"
    done
  done
  found=$(command -v scontrol || command -v slurmd || true)
  for file in ${found:+"$found"} "$ROOT/opt/slurm/bin/scontrol" "$ROOT/usr/local/bin/scontrol"; do
    [ ! -e "$file" ] || [[ "$file" = "$ROOT"/usr/bin/* || "$file" = "$ROOT"/usr/sbin/* ]] ||
      die "$file is not from Debian's packages, $untouched"
  done
  own=" $({ cat "$HOME_DIR"/run/*.pid "$EARLIER_DIR"/run/*.pid 2>/dev/null || true; } | tr '\n' ' ') "
  for file in "$ROOT"/proc/[0-9]*/comm; do
    comm=$(cat "$file" 2>/dev/null) || continue
    pid=${file#"$ROOT"/proc/} pid=${pid%/comm}
    case $comm in slurmctld | slurmd | slurmdbd | slurmrestd | sackd)
      [[ "$own" = *" $pid "* ]] || die "process $pid is a $comm that this script has not started, $untouched" ;;
    esac
  done
  # A client may find its configuration only by DNS.
  found=$(env -u SLURM_CONF timeout 10 scontrol show config 2>/dev/null | awk '$1 == "ClusterName" { print $3 }') || true
  [ -z "$found" ] || [ "$found" = devcluster ] || die "scontrol answers for the cluster $found, $untouched"
}
check_folder() { # no other user may have prepared it
  [ ! -L "$HOME_DIR" ] || die "$HOME_DIR is a symbolic link; expected a folder, set AOT_DEVCLUSTER to another one"
  mkdir -p -m 0755 "$HOME_DIR"
  [ "$(stat -c %u "$HOME_DIR")" = 0 ] && [ $((0$(stat -c %a "$HOME_DIR") & 022)) = 0 ] ||
    die "$HOME_DIR must belong to root and be writable only for root; remove it, or set AOT_DEVCLUSTER to another one"
  mkdir -p "$HOME_DIR"/{run,log,dev,db,etc,spool}
}
install_packages() { # waits while another apt is busy, and starts no service, now or at boot
  local deadline=$((SECONDS + APT_SECONDS)) policy=$ROOT/usr/sbin/policy-rc.d is_announced='' service added=''
  say "installing $*"
  if [ ! -e "$policy" ]; then printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod 755 "$policy"; added=1; fi
  until { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends \
    -o DPkg::Lock::Timeout=30 "$@"; } >"$HOME_DIR/log/apt.log" 2>&1; do
    if ! grep -qiE 'could not get lock|unable to (acquire|lock)|another process using it' "$HOME_DIR/log/apt.log"; then
      [ -z "$added" ] || rm -f "$policy"
      die "apt-get failed; see $HOME_DIR/log/apt.log"
    fi
    if [ $SECONDS -ge $deadline ]; then
      [ -z "$added" ] || rm -f "$policy"
      die "another apt or dpkg has been busy for $APT_SECONDS s; run this script again later"
    fi
    [ -n "$is_announced" ] || say 'waiting until another apt or dpkg has ended'
    is_announced=1; sleep 2
  done
  [ -z "$added" ] || rm -f "$policy"
  printf '%s\n' "$@" >>"$HOME_DIR/installed-packages"
  for service in $SERVICES; do # those that were installed just now
    [[ " $* " = *" $service "* ]] || continue
    if [ -d /run/systemd/system ]; then systemctl disable --now "$service" >/dev/null 2>&1 || true; fi
    deb-systemd-helper disable "$service.service" >/dev/null 2>&1 || true
    update-rc.d -f "$service" remove >/dev/null 2>&1 || true
  done
}

[ "$(id -u)" = 0 ] || die "must run as root: sudo make system"
command -v apt-get >/dev/null || die 'needs Debian or a distribution based on it: apt-get was not found'
refuse_other_slurm
if [ -f "$ROOT/etc/slurm/slurm.conf" ] && [ ! -L "$ROOT/etc/slurm/slurm.conf" ]; then # of an earlier version
  if (export SLURM_CONF=$ROOT/etc/slurm/slurm.conf; answers && has_accounting "$EARLIER_DIR"); then
    say 'running, started by an earlier version of this script'; exit 0
  fi
  ! is_alive "$EARLIER_DIR/run/slurmctld.pid" slurmctld ||
    die 'the cluster of an earlier version of this script runs, but does not answer; run launch/devcluster/down.sh first'
fi
check_folder

missing=()
for package in $PACKAGES; do
  dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q ^ii || missing+=("$package")
done
[ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
if answers && has_accounting "$HOME_DIR"; then say 'running'; sinfo; exit 0; fi

# --- configuration ------------------------------------------------------------------------------------------------
erase_state() { rm -rf "${HOME_DIR:?}/spool" "$HOME_DIR/db" "$HOME_DIR"/log/slurm*.log; }
if [ "${1:-}" = --fresh ]; then
  is_alive "$HOME_DIR/db/mariadbd.pid" mariadbd && die '--fresh needs a stopped cluster: run launch/devcluster/down.sh first'
  erase_state
fi
mkdir -p "$HOME_DIR/db" "$HOME_DIR/spool/slurmctld"
for ((i = 1; i <= NODES; i++)); do mkdir -p "$HOME_DIR/spool/slurmd.n$i"; done
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
cat >"$CONF/slurm.conf" <<CONF
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
StateSaveLocation=$HOME_DIR/spool/slurmctld
SlurmdSpoolDir=$HOME_DIR/spool/slurmd.%n
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
cat >"$CONF/gres.conf" <<CONF
$MARK
NodeName=n[1-$NODES] Name=gpu File=$HOME_DIR/dev/nvidia[0-$((GPUS - 1))]
CONF
cat >"$CONF/cgroup.conf" <<CONF
$MARK
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
CgroupAutomount=no
ConstrainCores=no
ConstrainDevices=no
ConstrainRAMSpace=yes
ConstrainSwapSpace=no
CONF
(umask 077 && cat >"$CONF/slurmdbd.conf" <<CONF
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

# Commands find the configuration without SLURM_CONF; down.sh removes the links.
mkdir -p "$ROOT/etc/slurm"
for file in slurm.conf gres.conf cgroup.conf slurmdbd.conf; do
  [ ! -e "$ROOT/etc/slurm/$file" ] || [ -L "$ROOT/etc/slurm/$file" ] || rm "$ROOT/etc/slurm/$file" # of an earlier version
done
for file in slurm.conf gres.conf cgroup.conf; do ln -sfn "$CONF/$file" "$ROOT/etc/slurm/$file"; done

# --- daemons ------------------------------------------------------------------------------------------------------
if ! munge -n 2>/dev/null | unmunge >/dev/null 2>&1; then
  install -d -o munge -g munge -m 0755 "$ROOT/run/munge"
  rm -f "$ROOT/run/munge/munge.socket.2" "$ROOT/run/munge/munge.socket.2.lock"
  su -s /bin/sh munge -c /usr/sbin/munged
  wait_for munged 10 sh -c 'munge -n | unmunge'
  cp "$ROOT/run/munge/munged.pid" "$HOME_DIR/run/munged.pid" # down.sh stops munged only if this script started it
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
wait_for accounting 30 has_accounting "$HOME_DIR"
say 'running'
sinfo
