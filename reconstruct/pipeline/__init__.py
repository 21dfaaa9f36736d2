"""Pipeline files: what one says, the order of its stages, what would run, and the run."""
