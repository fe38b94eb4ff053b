"""Fill a label map between the slices that were drawn, so that one slice in five is enough to draw."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from msklabel.errors import UserError
from msklabel.imaging.contours import Gap, interpolate_contours

_DRAWN_RUN = 3  # neighbouring slices that an annotator may draw together; whole structures are longer


def fill_between(
    labels: NDArray[np.uint8], drawn: Sequence[int], axis: int, values: Collection[int] | None = None
) -> NDArray[np.uint8]:
    """Interpolate label by label between neighbouring drawn slices.

    A label on both slices follows ITK's morphological contour interpolation. One that is on one of them only ends
    somewhere in between, nobody knows where: it is held up to the middle, where nothing else is.

    Args:
        labels: Shape (X, Y, Z).
        drawn: Indices of the drawn slices along ``axis``, ascending.
        axis: 0, 1 or 2.
        values: Labels to interpolate; the others stay as they are on the drawn slices. All by default.

    Returns:
        A new label map: drawn slices and all before the first and after the last are as they were.

    Raises:
        UserError: If there is nothing to interpolate between.
    """
    stack = np.moveaxis(labels, axis, 0)
    if not drawn or drawn[0] < 0 or drawn[-1] >= len(stack):
        raise UserError(f"slices: expected indices from 0 to {len(stack) - 1}, got {list(drawn)}")
    spans = [(first, last) for first, last in pairwise(drawn) if last - first > 1]
    wanted = np.zeros(256, bool)
    wanted[list(range(1, 256) if values is None else values)] = True
    if not stack[list(drawn)].any():
        raise UserError("nothing to interpolate: no voxel of the drawn slices is labelled")
    if not spans:
        raise UserError("nothing to interpolate: there is no gap between drawn slices")
    filled = stack.copy()
    ends = [tuple(np.where(wanted[stack[place]], stack[place], 0) for place in span) for span in spans]
    boxes = [_box(first, last) for first, last in ends]
    gaps = [
        Gap(first[box], last[box], end - start - 1)
        for (start, end), (first, last), box in zip(spans, ends, boxes, strict=True)
    ]
    common = [bool(np.intersect1d(gap.first[gap.first > 0], gap.last).size) for gap in gaps]
    between = iter(interpolate_contours([gap for gap, both in zip(gaps, common, strict=True) if both]))
    for (start, end), gap, box, both in zip(spans, gaps, boxes, common, strict=True):
        middle = next(between) if both else np.zeros((gap.missing, *gap.first.shape), np.uint8)
        filled[start + 1 : end] = 0
        filled[start + 1 : end, box[0], box[1]] = _held_to_the_middle(gap, middle)
    return np.ascontiguousarray(np.moveaxis(filled, 0, axis))


def drawn_slices(labels: NDArray[np.uint8], axis: int | None = None) -> tuple[int, tuple[int, ...]]:
    """Which slices were drawn, where nobody noted it: those that hold labels, along the axis where some do not.

    A gap between two legs is no gap between drawn slices: along the axis that was drawn in, labelled slices stand
    alone or in threes at most.

    Args:
        labels: Shape (X, Y, Z).
        axis: Where it is known.

    Returns:
        Axis and indices of the slices.

    Raises:
        UserError: If there is no such axis, or no label.
    """
    if not labels.any():
        raise UserError("nothing to interpolate: no voxel is labelled")
    found = {}
    for candidate in range(3) if axis is None else (axis,):
        others = tuple(other for other in range(3) if other != candidate)
        slices = np.flatnonzero(labels.any(axis=others))
        runs = np.split(slices, np.flatnonzero(np.diff(slices) > 1) + 1)
        if len(runs) > 1 and (axis is not None or np.median([len(run) for run in runs]) <= _DRAWN_RUN):
            found[candidate] = tuple(slices.tolist())
    if not found:
        where = "any axis" if axis is None else f"axis {axis}"
        raise UserError(f"nothing to interpolate: there are no gaps between the labelled slices along {where}")
    axis = max(found, key=lambda candidate: 1 - len(found[candidate]) / (np.ptp(found[candidate]) + 1))
    return axis, found[axis]


def _held_to_the_middle(gap: Gap, middle: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Add labels that one of the two slices lacks to the half of the gap that is nearer to the other."""
    held = middle.copy()
    for drawn, other, slices in (
        (gap.first, gap.last, range(gap.missing // 2)),
        (gap.last, gap.first, range(gap.missing - gap.missing // 2, gap.missing)),
    ):
        ending = np.where(np.isin(drawn, other), 0, drawn)
        for place in slices:
            held[place] = np.where(held[place] == 0, ending, held[place])
    return held


def _box(first: NDArray[np.uint8], last: NDArray[np.uint8]) -> tuple[slice, slice]:
    """Bounding box of what two slices hold together, with a margin of one pixel."""
    either = (first > 0) | (last > 0)
    rows, columns = (np.flatnonzero(either.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return slice(0, 1), slice(0, 1)
    return slice(max(0, rows[0] - 1), rows[-1] + 2), slice(max(0, columns[0] - 1), columns[-1] + 2)
