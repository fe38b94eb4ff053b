"""How much fat the segmented muscles hold: what decides which variant of a system fits a scan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msklabel.imaging.scan import Scan
from msklabel.pipeline.dixon import mean_fat_fraction
from msklabel.system import System


def muscle_fat_fraction_percent(system: System, scan: Scan, labels: NDArray[np.uint8]) -> float:
    """Mean fat fraction over all labelled voxels of a Dixon scan.

    From in-phase and out-of-phase images alone it is a lower bound: above 50 % a voxel looks like one below.

    Args:
        system: Names the channels.
        scan: Its channels in the system's order.
        labels: Shape (X, Y, Z).

    Returns:
        Percent; NaN where nothing is labelled.
    """
    channels = dict(zip(system.channels, scan.array, strict=True))
    return mean_fat_fraction(channels, labels > 0, water_dominant=True)


def fitting_variant(system: System, fat_fraction_percent: float) -> str:
    """Name of the variant that takes scans of a fat fraction; empty for the system's first model."""
    fitting = [
        (variant.fat_fraction_from_percent, name)
        for name, variant in system.variants.items()
        if fat_fraction_percent >= variant.fat_fraction_from_percent
    ]
    return max(fitting)[1] if fitting else ""
