"""Workers as SLURM jobs of their own, which come and go with the queue (dask-jobqueue).

    pip install 'reconstruct[cluster]' dask-jobqueue
    python docker/slurm.py run sfm --images /scratch/me/photos --output /scratch/me/out

Copy it, and set what follows to your cluster's partitions. Run it where jobs may be submitted from,
in tmux or as a small job of its own; stopped and run again it goes on.
"""

from __future__ import annotations

import sys

from dask_jobqueue import SLURMCluster

from reconstruct.__main__ import main

WORKERS = 32
THREADS = 8

if __name__ == "__main__":
    with SLURMCluster(
        queue="gpu",
        cores=1,  # chunks at a time
        processes=1,
        job_cpu=THREADS,
        memory="32GB",
        walltime="04:00:00",
        job_extra_directives=["--gres=gpu:1"],
        # A worker ends before its job does, so that no chunk is cut off by the time limit.
        worker_extra_args=["--lifetime", "3h50m", "--preload", "reconstruct.preload"],
        job_script_prologue=[f"export OMP_NUM_THREADS={THREADS}"],
    ) as cluster:
        cluster.adapt(maximum_jobs=WORKERS)
        where = ["--cluster", cluster.scheduler_address, "--set", f"cluster.threads={THREADS}"]
        sys.exit(main([*sys.argv[1:], *where]))
