#!/usr/bin/env bash
# Stops what up.sh has started: its jobs, its daemons (by their pid files) and its control groups; nothing else. Installed
# packages, the state of the jobs and the accounting are kept.
set -uo pipefail
HOME_DIR=${AOT_DEVCLUSTER:-/var/tmp/aot-devcluster}

is() { [ "$(cat "/proc/$1/comm" 2>/dev/null)" = "$2" ]; }
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
for group in /sys/fs/cgroup/*/slurm_n*; do # empty by now
  [ -d "$group" ] && find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null
done
echo 'devcluster: stopped'
