"""How much fat the segmented muscles hold: what decides which variant of a system fits a scan."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from msklabel.imaging.geometry import closest_axes
from msklabel.imaging.scan import Scan
from msklabel.pipeline.dixon import mean_fat_fraction, signal_under_skin
from msklabel.system import System

_AS_BRIGHT_AS_FAT = 0.87  # healthy muscle has three quarters of the signal of fat or less


def muscle_fat_fraction_percent(system: System, scan: Scan, labels: NDArray[np.uint8]) -> float:
    """Mean fat fraction over all labelled voxels of a Dixon scan.

    From in-phase and out-of-phase images alone it is a lower bound: above 50 % a voxel looks like one below.

    Args:
        system: Names the channels.
        scan: Its channels in the system's order; water and fat beside them are used where they are there.
        labels: Shape (X, Y, Z).

    Returns:
        Percent; NaN where nothing is labelled.
    """
    return mean_fat_fraction(_channels(system, scan), labels > 0, water_dominant=True)


def doubt_about_fat(system: System, scan: Scan, labels: NDArray[np.uint8], percent: float) -> str | None:
    """Say where the choice of a variant may be wrong, because phases alone do not tell water from fat.

    Muscle that is mostly fat reads as mostly water, but it is as bright in phase as the fat under the skin, where
    muscle is darker on most scans. That decides nothing, coils shade and sequences differ, so it is a warning.

    Args:
        system: With variants.
        scan: Its channels in the system's order.
        labels: Shape (X, Y, Z).
        percent: The fat fraction that was read.

    Returns:
        A sentence; None where water and fat are known, no other variant would fit, or muscle is darker than fat.
    """
    channels, other = _channels(system, scan), fitting_variant(system, 100 - percent)
    if {"water", "fat"} <= channels.keys() or np.isnan(percent) or other == fitting_variant(system, percent):
        return None
    axes, _ = closest_axes(scan.affine)
    x, y, z = (scan.spacing_mm[axis] for axis in axes)
    in_phase, muscles = channels["in_phase"].transpose(axes), (labels > 0).transpose(axes)
    skin_fat = signal_under_skin(in_phase, (x, y, z))
    if skin_fat is not None and np.median(in_phase[muscles]) < _AS_BRIGHT_AS_FAT * skin_fat:
        return None
    title = system.variants[other].title.lower() if other else "the first stages"
    return (
        f"the muscles' fat fraction reads as {percent:.0f} %, which phases alone do not tell from "
        f"{100 - percent:.0f} %, and they are as bright as fat; then the model for {title} would fit: add the water "
        "and fat images, or look closely at the result"
    )


def _channels(system: System, scan: Scan) -> dict[str, NDArray[Any]]:
    return {**dict(zip(system.channels, scan.array, strict=True)), **scan.beside}


def fitting_variant(system: System, fat_fraction_percent: float) -> str:
    """Name of the variant that takes scans of a fat fraction; empty for the system's first model."""
    fitting = [
        (variant.fat_fraction_from_percent, name)
        for name, variant in system.variants.items()
        if fat_fraction_percent >= variant.fat_fraction_from_percent
    ]
    return max(fitting)[1] if fitting else ""
