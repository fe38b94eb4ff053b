"""The images under a label map that quantities are measured in: Hounsfield units, or a fat fraction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msklabel.errors import UserError
from msklabel.imaging.alignment import misfit
from msklabel.imaging.channels import channel_files, named_channels, read_channels
from msklabel.imaging.geometry import closest_axes
from msklabel.imaging.names import is_image, without_suffix
from msklabel.imaging.regrid import labels_on_grid
from msklabel.imaging.scan import ImageError, LabelMap, Scan
from msklabel.measure.quantities import FAT, HU
from msklabel.pipeline.dixon import detect_swapped, fat_fraction_percent
from msklabel.system import System

_PAIR = ("water", "fat")


def find_image(folder: Path, scan: str) -> Path | None:
    """The image of a name in a folder: a file, a folder of DICOM series or channels, or files that name a channel."""
    for file in sorted(folder.iterdir()):
        if file.is_file() and is_image(file) and without_suffix(file.name) == scan:
            return file
    inside = folder / scan
    return inside if inside.is_dir() or channel_files(inside) else None


def image_parts(path: Path) -> list[Path]:
    """The file, the folder, or the files of the channels that an image of :func:`find_image` consists of."""
    alone = [path] if path.exists() else []
    of_channels = _beside(path) if alone else channel_files(path)
    return [*alone, *sorted({file for files in of_channels.values() for file in files})]


def read_image(path: Path, system: System) -> Scan:
    """A scan with all the channels that are there; water and fat of an MR image of any other contrast are beside it.

    Raises:
        ImageError: If it cannot be read, or water and fat lie on another grid.
    """
    from msklabel.imaging.read import read_scan

    if system.modality[0] in ("CT", "CR", "DX"):
        return read_scan(path)
    scan, beside = read_channels(path), _beside(path)
    if not beside:
        return scan
    pair = read_channels(path.with_name(without_suffix(path.name)), _PAIR)
    if difference := misfit(scan, pair, (path.name, " and ".join(beside[name][0].name for name in _PAIR))):
        raise ImageError(f"{difference}; a fat fraction needs them on one grid")
    return replace(scan, beside=named_channels(pair))


def _beside(path: Path) -> dict[str, list[Path]]:
    """Files ``<image>_water`` and ``<image>_fat`` beside a file ``<image>``; empty without."""
    stem = path.with_name(without_suffix(path.name))
    if not path.is_file() or stem.exists():
        return {}
    files = channel_files(stem)
    return {name: files[name] for name in _PAIR} if set(_PAIR) <= files.keys() else {}


def measurable(scan: Scan, system: System, name: str) -> dict[str, NDArray[Any]]:
    """What of a scan quantities can be told from.

    Args:
        scan: All its channels.
        system: Tells CT from MR.
        name: For messages.

    Returns:
        ``hu`` of CT; ``fat_fraction_percent`` of water and fat images, NaN where their sum is 0; else nothing.

    Raises:
        UserError: If water and fat are exchanged.
    """
    if system.modality[0] == "CT":
        return {HU: scan.array[0]}
    channels = {**named_channels(scan), **scan.beside}
    if not set(_PAIR) <= channels.keys():
        return {}
    axes, _ = closest_axes(scan.affine)
    x, y, z = (scan.spacing_mm[axis] for axis in axes)
    found = detect_swapped(channels["water"].transpose(axes), channels["fat"].transpose(axes), (x, y, z))
    if found.verdict in ("swapped", "partly"):
        raise UserError(f"{name}: {found}")
    return {FAT: fat_fraction_percent(channels["water"], channels["fat"])}


def on_image_grid(labels: LabelMap, scan: Scan, name: str, resample: bool) -> LabelMap:
    """The labels on the image's grid.

    Raises:
        UserError: If the grids differ and nothing says to resample, or they do not overlap.
    """
    difference = misfit(scan, Scan(labels.array[None], labels.affine), ("the image", "the label map"))
    if difference is None:
        return labels
    if not resample:
        raise UserError(f"{name}: {difference}; --resample brings the labels to the image's grid")
    moved = labels_on_grid(labels, scan.shape, scan.affine)
    if labels.array.any() and not np.any(moved.array):
        raise UserError(f"{name}: the label map lies wholly outside the image")
    return moved
