"""Slices that were drawn before are carried over into a label that speaks of other slices of the same scan.

So the newest version of a label says all that is known, however often somebody came back to draw a few slices more.
What is carried over is noted with the version; the earlier versions stay as they are.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import numpy as np

from msklabel.errors import Conflict, UserError
from msklabel.imaging import LabelMap, same_grid
from msklabel.imaging.annotated import Annotated
from msklabel.imaging.geometry import closest_axes
from msklabel.imaging.read import read_labels
from msklabel.store.annotation import annotated_of
from msklabel.store.labels import Labels, Overtaken, Submission
from msklabel.store.schema import LabelVersion
from msklabel.system import System

NOTED = "carried_over"
"""Key under which a version notes where its other slices come from."""


def add_to_earlier(labels: Labels, submission: Submission, system: System, opened: int | None = None) -> LabelVersion:
    """Store a label, with the slices of the version before that it does not speak of, also where two come at once.

    Where the file of that version cannot be read, the label is stored as it is, with a warning.

    Args:
        labels: All versions.
        submission: A checked label.
        system: Its system.
        opened: Version that its author began with, 0 for none; None where that does not matter.

    Raises:
        UserError: If nothing is labelled, here and before.
        Conflict: If a newer one than ``opened`` stands; then nothing is stored.
        StorageFull: If the disk is full; then nothing is left.
    """
    some = submission.annotated.slices is not None
    while some or opened is not None:
        before = labels.standing(submission.image_id, submission.tag, submission.system)
        if before and opened is not None and before.id > opened:
            who = before.author or "somebody"
            raise Conflict(f"{who} has submitted version {before.id} of this label since it was opened here")
        full = replace(submission, follows=before.id if before else 0)
        if before and some:
            try:
                full = carried_over(full, system, before, read_labels(labels.file(before)))
            except (OSError, UserError) as error:
                lost = f"the slices of version {before.id} were not kept, as its file cannot be read: {error}"
                full = replace(full, warnings=[*full.warnings, lost])
        with suppress(Overtaken):
            return labels.add(full)
    return labels.add(submission)


def carried_slices(
    system: System, earlier: LabelMap, earlier_annotated: Annotated, annotated: Annotated
) -> tuple[int, ...]:
    """Which slices of an earlier label a newer one leaves as they are.

    Args:
        system: Whose labels they are.
        earlier: The earlier label.
        earlier_annotated: What that speaks of.
        annotated: What the newer one speaks of.

    Returns:
        Indices, ascending; none where the newer one speaks of all slices, of other classes, or counts along another
        axis than the earlier one.
    """
    axis = annotated.slice_axis
    if annotated.slices is None or earlier_annotated.classes != annotated.classes:
        return ()
    before = earlier_annotated.slices
    if before is None and system.dimensions == 2:  # the slices that have a label are those that were drawn
        axes, _ = closest_axes(earlier.affine)
        drawn = earlier.array.any(axis=tuple(other for other in range(3) if other != axes[2]))
        before = tuple(np.flatnonzero(drawn).tolist()) if axis == axes[2] else ()
    elif before is None:
        before = tuple(range(earlier.array.shape[axis]))
    elif earlier_annotated.slice_axis != axis:
        before = ()
    return tuple(sorted(set(before) - set(annotated.slices)))


def carried_over(submission: Submission, system: System, version: LabelVersion, earlier: LabelMap) -> Submission:
    """The submission with those slices of an earlier label that it does not speak of.

    Args:
        submission: A checked label.
        system: Its system.
        version: The version that it follows.
        earlier: The label of that; where it lies on another grid, as the scan was replaced, nothing is carried over.
    """
    labels, annotated = submission.labels, submission.annotated
    if not same_grid(labels.array.shape, labels.affine, earlier.array.shape, earlier.affine):
        return submission
    slices = carried_slices(system, earlier, annotated_of(version), annotated)
    if not slices:
        return submission
    voxels = labels.array.copy()
    there = np.moveaxis(earlier.array, annotated.slice_axis, 0)[list(slices)]
    np.moveaxis(voxels, annotated.slice_axis, 0)[list(slices)] = there
    labels = LabelMap(voxels, labels.affine)
    every = tuple(sorted({*slices, *(annotated.slices or ())}))
    all_of_them = len(every) == voxels.shape[annotated.slice_axis] and system.dimensions == 3
    present = labels.present()
    return replace(
        submission,
        labels=labels,
        classes=[name for name, index in system.label_indices.items() if index in present],
        annotated=replace(annotated, slices=None if all_of_them else every),
        info={**submission.info, NOTED: {"version": version.id, "author": version.author, "slices": list(slices)}},
    )
