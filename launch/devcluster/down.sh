#!/usr/bin/env bash
# Stops what up.sh has started: the jobs on its nodes, its daemons (by their pid files) and its control groups, and
# removes its links from /etc/slurm; nothing else. Installed packages, the state of jobs and the accounting are kept.
#
#   down.sh            stop it
#   down.sh --purge    also delete its folder with jobs, accounting and logs, and name the packages that up.sh installed
#
# Environment: AOT_DEVCLUSTER (its folder), AOT_DEVCLUSTER_ROOT (of the tests: where the rest of the machine is).
set -uo pipefail
HOME_DIR=${AOT_DEVCLUSTER:-/var/lib/aot-devcluster}
ROOT=${AOT_DEVCLUSTER_ROOT:-}
OURS='# written by launch/devcluster/up.sh|# written by slurm-up.sh'
export SLURM_CONF=$HOME_DIR/etc/slurm.conf   # no other cluster is ever asked, whatever the environment says
if [ ! -e "$SLURM_CONF" ] && [ -z "${AOT_DEVCLUSTER:-}" ] &&
  head -1 /etc/slurm/slurm.conf 2>/dev/null | grep -qE "$OURS"; then
  HOME_DIR=/var/tmp/aot-devcluster SLURM_CONF=/etc/slurm/slurm.conf   # of an earlier version of up.sh
fi

is() { [ "$(cat "$ROOT/proc/$1/comm" 2>/dev/null)" = "$2" ]; }
stop() { # stop COMMAND PIDFILE...: SIGTERM to each, wait for all, SIGKILL after 30 s
  local command=$1 file pid i left; shift; local pids=()
  for file in "$@"; do
    pid=$(cat "$file" 2>/dev/null) || continue
    if [ -n "$pid" ] && is "$pid" "$command"; then kill "$pid" && pids+=("$pid"); fi
  done
  for ((i = 0; i < 300; i++)); do
    left=0; for pid in ${pids[@]+"${pids[@]}"}; do is "$pid" "$command" && left=1; done
    [ $left = 0 ] && break; sleep .1
  done
  for pid in ${pids[@]+"${pids[@]}"}; do is "$pid" "$command" && { echo "devcluster: killing $command $pid" >&2; kill -9 "$pid"; }; done
  rm -f "$@"
}

if is "$(cat "$HOME_DIR/run/slurmctld.pid" 2>/dev/null || echo 0)" slurmctld; then
  jobs=$(squeue -h -o %A 2>/dev/null | sort -u)
  if [ -n "$jobs" ]; then # jobs outlive their slurmd, so they are cancelled first
    echo "devcluster: cancelling the jobs of $(squeue -h -o %u 2>/dev/null | sort -u | xargs | sed 's/ /, /g')"
    # shellcheck disable=SC2086
    scancel $jobs
    for ((i = 0; i < 300; i++)); do [ -z "$(squeue -h -o %A)" ] && break; sleep .1; done
  fi
fi
stop slurmctld "$HOME_DIR/run/slurmctld.pid"
stop slurmd "$HOME_DIR"/run/slurmd.n*.pid
stop slurmdbd "$HOME_DIR/run/slurmdbd.pid"
stop mariadbd "$HOME_DIR/db/mariadbd.pid"
stop munged "$HOME_DIR/run/munged.pid"
for log in "$HOME_DIR"/log/slurmd.n*.log; do # of the nodes that have run; the groups are empty by now
  node=${log##*/slurmd.} node=${node%.log}
  for group in /sys/fs/cgroup/*/"slurm_$node"; do
    [ -d "$group" ] && find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null
  done
done
for file in slurm.conf gres.conf cgroup.conf slurmdbd.conf; do
  case $(readlink "$ROOT/etc/slurm/$file" 2>/dev/null) in "$HOME_DIR"/*) rm "$ROOT/etc/slurm/$file" ;; esac
done
echo 'devcluster: stopped'
if [ "${1:-}" = --purge ]; then
  packages=$(cat "$HOME_DIR/installed-packages" 2>/dev/null | xargs)
  head -1 "$HOME_DIR/etc/slurm.conf" 2>/dev/null | grep -qE "$OURS" && rm -rf "${HOME_DIR:?}"
  echo "devcluster: $HOME_DIR was deleted${packages:+; up.sh installed these packages: apt-get purge $packages}"
fi
