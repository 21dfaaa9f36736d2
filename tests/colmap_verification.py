"""COLMAP's own verification of a whole database: what pair-by-pair verification is held against."""

from __future__ import annotations

from pathlib import Path

import pycolmap


def verify_database(path: Path, *, max_error_px: float = 4.0, seed: int = 0) -> None:
    """Robust two-view geometry of every matched pair in the database, in COLMAP's own loop."""
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.max_error = max_error_px
    options.ransac.random_seed = seed
    pycolmap.geometric_verification(path, two_view_geometry_options=options)
