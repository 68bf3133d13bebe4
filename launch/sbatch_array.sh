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
PYTHON=${PYTHON:-python}   # such as PYTHON=/path/to/.venv/bin/python
# exec: SLURM's signal, 90 s before the time limit, reaches the command itself, which stops cleanly.
exec "$PYTHON" -m aot.run launcher=local shard="$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" "$@"
