#!/bin/bash
# One SLURM job: a Dask scheduler and the driver on its first node, a worker for each task.
#
#   sbatch docker/slurm.sh run sfm --images /scratch/me/photos --output /scratch/me/out
#
# Photos and output folder lie on a disk that all nodes share. Submit the same line again after the
# time limit: the run goes on. For GPUs add `#SBATCH --gpus-per-task=1`.
#SBATCH --job-name=reconstruct
#SBATCH --ntasks=16
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=2G
#SBATCH --time=24:00:00
set -euo pipefail

# How the program is called on a node: from an environment, or from the image, e.g.
#   PROGRAM="apptainer exec --nv --bind /scratch reconstruct.sif"
PROGRAM=${PROGRAM:-}

scheduler=$(mktemp --tmpdir="$SLURM_SUBMIT_DIR" .scheduler-XXXXXX.json)
trap 'kill $(jobs -p) 2>/dev/null; rm -f "$scheduler"' EXIT
rm "$scheduler"
$PROGRAM dask scheduler --scheduler-file "$scheduler" &
until [ -s "$scheduler" ]; do sleep 1; done
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
srun --overlap $PROGRAM dask worker --scheduler-file "$scheduler" --no-dashboard --nthreads 1 \
    --preload reconstruct.preload --death-timeout 60 \
    --memory-limit "$((SLURM_MEM_PER_CPU * SLURM_CPUS_PER_TASK))MB" &
$PROGRAM reconstruct "$@" --cluster "$scheduler" --set cluster.threads="$SLURM_CPUS_PER_TASK"
