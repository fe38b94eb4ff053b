"""Levels along the femur of each side, told from both of its ends; none where an end lies outside the scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msklabel.errors import UserError
from msklabel.imaging.geometry import Affine, closest_axes
from msklabel.measure.reference_slice import NoSlice, ends_of_femur, slice_at_percent
from msklabel.measure.structures import SIDES_APART, Half, Plane, parts_of, structures_of
from msklabel.measure.tally import Tally, tally
from msklabel.system import System

FEMUR = "femur"  # label that percentages of the femur are told by


@dataclass(frozen=True)
class Femur:
    """The femur of one side, or of both together.

    Attributes:
        voxels: In each slice, from inferior.
        at_edge: Those of them on the edge of the field of view.
    """

    voxels: NDArray[np.int64]
    at_edge: NDArray[np.int64]

    def percent(self) -> NDArray[np.float64] | None:
        """Where along its length each slice lies, 0 at the upper end; None where an end is not in the scan."""
        try:
            first, last = ends_of_femur(self.voxels, self.at_edge)
        except NoSlice:
            return None
        return 100 * (last - np.arange(len(self.voxels))) / max(1, last - first)


def femora_of(
    labels: NDArray[np.uint8], affine: Affine, system: System, table: Tally, plane: Plane | None, only: Half | None
) -> dict[str, Femur]:
    """The femur of each side; empty where the system has no such label.

    Args:
        labels: Shape (X, Y, Z), any axis order.
        affine: Voxel index to RAS mm.
        system: Names the label.
        table: Its voxels.
        plane: Where left and right meet.
        only: The one side that is in the scan.
    """
    parts = [part for part in parts_of(structures_of(system), plane, only) if part.structure.name == FEMUR]
    if not parts:
        return {}
    edge = np.zeros_like(labels)
    for axis in closest_axes(affine)[0][:2]:
        for end in (0, -1) if labels.shape[axis] > 1 else ():  # a radiograph has no edge before and behind it
            np.moveaxis(edge, axis, 0)[end] = np.moveaxis(labels, axis, 0)[end]
    at_edge = tally(edge, affine, system.classes, plane)
    return {part.side: Femur(table.profile(part), at_edge.profile(part)) for part in parts}


def along_femur(femora: Mapping[str, Femur]) -> dict[str, NDArray[np.float64] | None]:
    """Where along the femur of each side each slice lies; both sides together only where each of them can be told."""
    along = {side: femur.percent() for side, femur in femora.items()}
    if any(along[side] is None for side in SIDES_APART if side in along):
        along["both"] = None
    return along


def slices_at_percent(
    femora: Mapping[str, Femur], percent: float, system: System
) -> tuple[dict[str, int], dict[str, str]]:
    """The slice of each side at a percentage of its femur, for both together halfway between the two.

    Args:
        femora: By side.
        percent: 0 is the upper end, 100 the lower one.
        system: Whose labels they are.

    Returns:
        Slices from the lowest, by side; and by side why there is none. Without the slice of one side there is none of
        both.

    Raises:
        NoSlice: If no side has one.
        UserError: If the system has no such label, or the percentage is impossible.
    """
    if not femora:
        raise UserError(f"{system.name} has no label {FEMUR}, so that no percentage of it can be told")
    found: dict[str, int] = {}
    missing: dict[str, str] = {}
    apart = [side for side in SIDES_APART if side in femora]
    for side in apart or femora:
        try:
            found[side] = slice_at_percent(femora[side].voxels, percent, femora[side].at_edge)
        except NoSlice as error:
            missing[side] = str(error)
    if not found:
        raise NoSlice(next(iter(missing.values())))
    if apart and missing:
        missing["both"] = "; ".join(f"{side}: {reason}" for side, reason in missing.items())
    elif apart:
        found["both"] = round(np.mean(list(found.values())))
    return found, missing
