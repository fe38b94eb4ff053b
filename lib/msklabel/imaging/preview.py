"""A small picture of a scan with its label: one plane across each axis, as radiologists look at them."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

from msklabel.errors import Conflict
from msklabel.imaging.geometry import closest_axes, same_grid, spacing_mm
from msklabel.imaging.scan import LabelMap, Scan

UNFIT = "the scan has another grid than when this label was drawn: they no longer fit"
_HEIGHT = 240
_GAP = 4
_OPACITY = 0.5


def preview_png(scan: Scan, labels: LabelMap | None, colors: Mapping[int, tuple[int, int, int]]) -> bytes:
    """Draw the axial, coronal and sagittal plane through the middle of the label, else of the scan, side by side.

    The patient's right is on the left, anterior and superior are on top. A single slice is drawn alone.

    Args:
        scan: The first channel is drawn, from its 1st to its 99th percentile.
        labels: On the voxels of the scan; None for none.
        colors: RGB for each index.

    Raises:
        Conflict: If the label is not on the voxels of the scan.
    """
    if labels and not same_grid(labels.array.shape, labels.affine, scan.shape, scan.affine):
        raise Conflict(UNFIT)
    image = _upright(scan.array[0], scan.affine)
    drawn = np.zeros(image.shape, np.uint8) if labels is None else _upright(labels.array, labels.affine)
    axes, _ = closest_axes(scan.affine)
    spacing = [spacing_mm(scan.affine)[axis] for axis in axes]
    low, high = np.percentile(image, [1, 99])
    grey = (255 * np.clip((image - low) / max(float(high - low), 1e-6), 0, 1)).astype(np.uint8)
    table = np.zeros((256, 3), np.uint8)
    for index, color in colors.items():
        table[index] = color
    flat = [axis for axis in (2, 1, 0) if image.shape[axis] == 1]
    axes_across = flat[:1] or [2, 1, 0]
    size_mm = [float(n * mm) for n, mm in zip(image.shape, spacing, strict=True)]
    mm_per_pixel = max(size_mm[1 if axis == 2 else 2] for axis in axes_across) / _HEIGHT
    parts = [_plane(grey, drawn, table, axis, size_mm, mm_per_pixel) for axis in axes_across]
    width = sum(part.width for part in parts) + _GAP * (len(parts) - 1)
    whole, left = Picture.new("RGB", (width, _HEIGHT)), 0
    for part in parts:
        whole.paste(part, (left, (_HEIGHT - part.height) // 2))
        left += part.width + _GAP
    stream = io.BytesIO()
    whole.save(stream, "PNG")
    return stream.getvalue()


def _upright(array: NDArray, affine: NDArray[np.float64]) -> NDArray:
    """With axes right, anterior, superior."""
    axes, signs = closest_axes(affine)
    return array.transpose(axes)[tuple(slice(None, None, sign) for sign in signs)]


def _plane(
    grey: NDArray, drawn: NDArray, table: NDArray, axis: int, size_mm: list[float], mm_per_pixel: float
) -> Picture.Image:
    """One plane across an axis, all planes to one scale."""
    where = np.flatnonzero(drawn.any(axis=tuple(a for a in range(3) if a != axis)))
    place = int(where[len(where) // 2]) if len(where) else grey.shape[axis] // 2
    image, label = grey.take(place, axis).astype(float)[..., None].repeat(3, -1), drawn.take(place, axis)
    image[label > 0] = (1 - _OPACITY) * image[label > 0] + _OPACITY * table[label[label > 0]]
    rows = image.transpose(1, 0, 2)[::-1]
    if axis != 0:
        rows = rows[:, ::-1]  # the patient's right on the left
    width, height = (max(1, round(size_mm[a] / mm_per_pixel)) for a in range(3) if a != axis)
    picture = Picture.fromarray(np.ascontiguousarray(rows.astype(np.uint8)))
    return picture.resize((min(width, 4 * _HEIGHT), height), Picture.Resampling.BILINEAR)
