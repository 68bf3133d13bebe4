#!/usr/bin/env bash
# A run divided among the tasks of one SLURM array, for those who would rather use sbatch than launcher=slurm:
#
#   sbatch launch/sbatch_array.sh dataset=videos dataset.root=/data/clips
#   sbatch --array=1-64%16 --partition=gpu --gpus=1 --mem=64G launch/sbatch_array.sh dataset=davis dataset.root=/data/DAVIS
#
# Every task runs `shard=<its number>/<number of tasks>` of the same plan; the same command again takes what is missing.
# Submit it from the folder that `python -m aot.run` works in. Any other scheduler can do the same with its own numbers.
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
# exec: SLURM's signal, 90 s before the time limit, reaches the command itself, which puts away what it has in hand.
exec "$PYTHON" -m aot.run launcher=local shard="$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" "$@"
