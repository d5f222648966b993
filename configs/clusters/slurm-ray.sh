#!/usr/bin/env bash
# One Ray cluster over the nodes of an allocation: sbatch configs/clusters/slurm-ray.sh STUDY DIR
# DIR lies on a file system that all nodes share; so does the environment that scisci is installed in.
#SBATCH --job-name=scisci
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=08:00:00
set -euo pipefail

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export RAY_worker_niceness=0

srun ray symmetric-run \
    --address "$head:6379" \
    --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus "$SLURM_CPUS_PER_TASK" \
    --num-gpus "${SLURM_GPUS_ON_NODE:-0}" \
    -- \
    scisci sweep run "$1" --out "$2" --address auto --budget 7h30m
