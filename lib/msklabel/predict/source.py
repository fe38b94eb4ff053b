"""Read a scan as a system wants it: the right channels in the right order, or one sentence on what is missing."""

from __future__ import annotations

import logging
from pathlib import Path

from msklabel.imaging.channels import named_channels, read_channels
from msklabel.imaging.geometry import closest_axes
from msklabel.imaging.read import read_scan
from msklabel.imaging.scan import ImageError, Scan
from msklabel.pipeline.dixon import detect_swapped, select_channels
from msklabel.system import System

logger = logging.getLogger(__name__)
_MODALITIES = ("CT", "MR", "CR", "DX")


def read_for(system: System, path: str | Path) -> Scan:
    """Read the scan that a path belongs to.

    Args:
        system: Names the channels. In-phase and out-of-phase images are made from water and fat where those are there.
        path: A file, one file of a group of channels, a 4D file, or a folder of DICOM series.

    Raises:
        ImageError: If a channel is missing, does not line up, or water and fat are exchanged.
    """
    if len(system.channels) == 1:
        scan = read_scan(path)
        _require_modality(system, scan, Path(path).name)
        if len(scan.array) != 1:
            needed = f"{system.name} needs 1 channel ({system.channels[0]})"
            raise ImageError(f"{Path(path).name}: {needed}, this has {len(scan.array)}")
        return scan
    scan = read_channels(path)
    _require_modality(system, scan, Path(path).name)
    named = named_channels(scan)
    if not named:
        return read_channels(path, system.channels)
    if {"water", "fat"} <= named.keys():
        _require_not_swapped(scan, Path(path).name)
    beside = {name: array for name, array in named.items() if name not in system.channels}
    return Scan(select_channels(named, system.channels), scan.affine, scan.facts, beside)


def _require_modality(system: System, scan: Scan, name: str) -> None:
    """Refuse a scan whose header says that it is of another kind; many files do not say."""
    modality = scan.facts.get("modality", "")
    if modality in _MODALITIES and modality not in system.modality:
        raise ImageError(f"{name}: {system.name} is for {' and '.join(system.modality)}, this is {modality}")


def _require_not_swapped(scan: Scan, name: str) -> None:
    named = named_channels(scan)
    axes, _ = closest_axes(scan.affine)
    water, fat = (named[channel].transpose(axes) for channel in ("water", "fat"))
    x, y, z = (scan.spacing_mm[axis] for axis in axes)
    found = detect_swapped(water, fat, (x, y, z))
    if found.verdict in ("swapped", "partly"):
        raise ImageError(
            f"{name}: water and fat are exchanged in {found.swapped_pieces} of {found.pieces} cross-sections "
            f"(under the skin {found.ring_percent:.0f} % fat, inside {found.core_percent:.0f} %)"
        )
    if found.verdict == "unclear":
        logger.warning("%s: cannot tell from the image that water and fat are not exchanged", name)
