"""Slices that were drawn before are carried over into a label that speaks of other slices of the same scan.

So the newest version of a label says all that is known, however often somebody came back to draw a few slices more.
What is carried over is noted with the version; the earlier versions stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from msklabel.imaging import LabelMap
from msklabel.imaging.annotated import Annotated
from msklabel.store.annotation import annotated_of
from msklabel.store.labels import Submission
from msklabel.store.schema import LabelVersion
from msklabel.system import System

NOTED = "carried_over"
"""Key under which a version notes where its other slices come from."""


def carried_slices(
    system: System, array: NDArray[np.uint8], earlier: Annotated, annotated: Annotated
) -> tuple[int, ...]:
    """Which slices of an earlier label a newer one leaves as they are.

    Args:
        system: Whose labels they are.
        array: The earlier label, shape (X, Y, Z).
        earlier: What that speaks of.
        annotated: What the newer one speaks of.

    Returns:
        Indices, ascending; none where the newer one speaks of all slices, of other classes, or counts along another
        axis than the earlier one.
    """
    axis = annotated.slice_axis
    if annotated.slices is None or earlier.classes != annotated.classes:
        return ()
    if earlier.slices is None:
        across = tuple(other for other in range(3) if other != axis)
        drawn = array.any(axis=across) if system.dimensions == 2 else np.ones(array.shape[axis], bool)
        before: Sequence[int] = np.flatnonzero(drawn).tolist()
    else:
        before = earlier.slices if earlier.slice_axis == axis else ()
    return tuple(sorted(set(before) - set(annotated.slices)))


def carried_over(submission: Submission, system: System, earlier: LabelVersion, array: NDArray[np.uint8]) -> Submission:
    """The submission with those slices of an earlier label that it does not speak of.

    Args:
        submission: A checked label.
        system: Its system.
        earlier: Version that it follows.
        array: Voxels of that, shape (X, Y, Z).
    """
    slices = carried_slices(system, array, annotated_of(earlier), submission.annotated)
    if not slices:
        return submission
    axis = submission.annotated.slice_axis
    voxels = submission.labels.array.copy()
    np.moveaxis(voxels, axis, 0)[list(slices)] = np.moveaxis(array, axis, 0)[list(slices)]
    labels = LabelMap(voxels, submission.labels.affine)
    every = sorted({*slices, *(submission.annotated.slices or ())})
    all_of_them = len(every) == voxels.shape[axis] and system.dimensions == 3
    present = labels.present()
    return replace(
        submission,
        labels=labels,
        classes=[name for name, index in system.label_indices.items() if index in present],
        annotated=replace(submission.annotated, slices=None if all_of_them else tuple(every)),
        info={**submission.info, NOTED: {"version": earlier.id, "author": earlier.author, "slices": list(slices)}},
    )
