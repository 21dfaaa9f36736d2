"""Chunks of keyed stages on the workers of a Dask cluster.

    --cluster local:4               four worker processes on this machine
    --cluster tcp://host:8786       the workers of a scheduler that runs already

The driver, which is the program that was started, plans, and sends each worker settings and keys
(see `reconstruct.executor.Job`). Workers read photos and write shards in the output folder, which
all machines see under one path; nothing of that passes through the scheduler.
"""
