#!/usr/bin/env bash
# Every task of a job array does a part of the study, without Ray: sbatch configs/clusters/slurm-array.sh STUDY DIR
# Afterwards, once: scisci sweep collect DIR. To do what is left, submit the same again.
#SBATCH --job-name=scisci
#SBATCH --array=1-64
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --time=08:00:00
set -euo pipefail

scisci sweep run "$1" --out "$2" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_MAX" --budget 7h30m
