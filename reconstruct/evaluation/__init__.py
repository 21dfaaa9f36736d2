"""Metrics of matches, geometry, poses and localization: pure functions on arrays."""
