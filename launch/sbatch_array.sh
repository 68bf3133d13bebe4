#!/usr/bin/env bash
# Divides a run among the tasks of one SLURM array, as an alternative to launcher=slurm:
#
#   sbatch launch/sbatch_array.sh dataset=videos dataset.root=/data/clips
#   sbatch --array=1-64%16 --partition=gpu --gpus=1 --mem=64G launch/sbatch_array.sh dataset=davis dataset.root=/data/DAVIS
#
# Every task processes `shard=<its number>/<number of tasks>` of the same plan; submit the same command again to process
# what is missing. Submit it from the working directory of `python -m aot.run`. The same works with the task numbers of
# any other scheduler.
#
#SBATCH --job-name=aot
#SBATCH --array=1-16
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@90
#SBATCH --output=aot-%A_%a.log
set -euo pipefail
# The Python with aot: $PYTHON, the one that is active, or .venv in the directory of the submission or above it.
find_python() {
  local candidate folder=${SLURM_SUBMIT_DIR:-$PWD}
  for candidate in ${PYTHON:+"$PYTHON"} python python3; do
    "$candidate" -c 'import aot' 2>/dev/null && { PYTHON=$candidate; return; }
    [ -z "${PYTHON:-}" ] || return 1
  done
  while :; do
    candidate=$folder/.venv/bin/python
    [ -x "$candidate" ] && "$candidate" -c 'import aot' 2>/dev/null && { PYTHON=$candidate; return; }
    [ "$folder" != / ] && [ "$folder" != . ] || return 1
    folder=$(dirname "$folder")
  done
}
if ! find_python; then
  echo "sbatch_array.sh: ${PYTHON:-no Python that was found (python, python3, .venv/bin/python)} cannot import aot on" \
    "$(hostname); submit with: PYTHON=/path/to/.venv/bin/python sbatch sbatch_array.sh ..." >&2
  exit 2
fi
if [ -z "${SLURM_ARRAY_TASK_ID:-}" ]; then
  echo "sbatch_array.sh: this is not a task of an array; submit it: sbatch $0 $*" >&2
  exit 2
fi
# exec: SLURM's signal, 90 s before the time limit, reaches the command itself, which stops cleanly.
exec "$PYTHON" -m aot.run launcher=local shard="$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" "$@"
