"""What a label says about each voxel and each class; the rest is unknown, never background.

Two kinds of not knowing are kept apart. A slice that nobody looked at says nothing: its voxels are ``UNKNOWN``, and
losses and metrics pass over them. Where an annotator looked for some classes only, an unlabelled voxel may in truth be
one of the others: it is "background or any class that was not looked for", one merged class, whose probability is
the sum of theirs (marginal loss, Shi et al. 2021, Medical Image Analysis 70:101979).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msklabel.errors import UserError
from msklabel.imaging.annotated import Annotated
from msklabel.pipeline.resample import AxisMaps, nearest_index
from msklabel.system import System

UNKNOWN = 255


def known_classes(system: System, annotated: Annotated) -> NDArray[np.bool_]:
    """Which classes were looked for: shape (classes,), the background always.

    Raises:
        UserError: If a name is no label of the system.
    """
    known = np.ones(system.classes, bool)
    if annotated.classes is not None:
        unknown = [name for name in annotated.classes if name not in system.labels]
        if unknown:
            raise UserError(f"annotated classes: {unknown[0]!r} is no label of {system.name}")
        known[1:] = [name in annotated.classes for name in system.label_indices]
    return known


def known_labels(
    system: System, labels: NDArray[np.uint8], annotated: Annotated, slice_axis: int = 2
) -> NDArray[np.uint8]:
    """A label map in which what nobody looked at is ``UNKNOWN``.

    In 2D systems, whose annotators draw some slices of a scan, a slice without any label counts as not looked at
    unless the annotator says otherwise. Voxels of a class that was not looked for (left over from a draft, say)
    become 0, which then stands for "background or not looked for".

    Args:
        system: The system.
        labels: Shape (X, Y, Z), as stored.
        annotated: What the label speaks of.
        slice_axis: Axis across the slices of a 2D system.

    Raises:
        UserError: If a slice is named that the scan does not have.
    """
    known = known_classes(system, annotated)
    result = labels.copy()
    if not known.all():
        result[np.isin(labels, np.flatnonzero(~known))] = 0
    if annotated.slices is not None:
        slice_axis = annotated.slice_axis
        count = labels.shape[slice_axis]
        if any(not 0 <= index < count for index in annotated.slices):
            raise UserError(f"annotated slices: the scan has {count} along axis {slice_axis}, from 0")
        seen = np.isin(np.arange(count), annotated.slices)
    elif system.dimensions == 2:
        seen = labels.any(axis=tuple(axis for axis in range(3) if axis != slice_axis))
    else:
        return result
    np.moveaxis(result, slice_axis, 0)[~seen] = UNKNOWN
    return result


def keep_drawn_slices(labels: NDArray[np.uint8], along: AxisMaps) -> NDArray[np.uint8]:
    """Move drawn slices to where resampling by the nearest voxel looks, so that a coarser grid loses none needlessly.

    A working voxel that covers several slices takes the drawn one, where the nearest is not.

    Args:
        labels: Shape (X, Y, Z), in working axes; ``UNKNOWN`` where nothing is known.
        along: How the working grid lies along each axis.
    """
    result = labels
    for axis, one in enumerate(along):
        drawn = (labels != UNKNOWN).any(axis=tuple(other for other in range(3) if other != axis))
        if one.step <= 1 or drawn.all():
            continue
        result = result.copy()
        cell = nearest_index(one.back())
        for position, taken in enumerate(nearest_index(one)):
            covered = np.flatnonzero((cell == position) & drawn)
            if not drawn[taken] and len(covered):
                np.moveaxis(result, axis, 0)[taken] = np.moveaxis(labels, axis, 0)[covered[0]]
    return result
