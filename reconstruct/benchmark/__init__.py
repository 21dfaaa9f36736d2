"""Benchmarks: methods side by side on public data with ground truth."""
