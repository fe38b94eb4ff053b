"""What is measured of a system: its labels and groups, and what of each lies on which side."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from msklabel.errors import UserError
from msklabel.imaging.geometry import Affine, closest_axes
from msklabel.system import System

Half = Literal["left", "right"]
SIDES: tuple[str, ...] = ("both", "left", "right")
SIDES_APART: tuple[Half, Half] = ("left", "right")

_TWO_SIDES_WIDTH_TO_DEPTH = 1.25  # two thighs or a pelvis are wider than this, one thigh is about round
_GAP_FRACTION = 0.02  # of the fullest plane: so little is a gap
_SEARCH_FRACTION = 0.1  # of the labels' width, to either side of its middle


@dataclass(frozen=True)
class Structure:
    """A label or a group of labels.

    Attributes:
        name: As in the System, without ``_left`` or ``_right``.
        kind: ``label`` or ``group``.
        indices: Voxel values, on both sides.
        by_side: Voxel values of either side, where labels say it themselves; else empty, and the plane parts them.
    """

    name: str
    kind: Literal["label", "group"]
    indices: tuple[int, ...]
    by_side: tuple[tuple[Half, tuple[int, ...]], ...] = ()


@dataclass(frozen=True)
class Part:
    """One structure on one side: where to look for which voxel values.

    Attributes:
        structure: The label or group.
        side: ``both``, ``left`` or ``right``.
        indices: Voxel values that count.
        half: Only voxels on this side of the plane; None: all.
    """

    structure: Structure
    side: str
    indices: tuple[int, ...]
    half: Half | None = None


@dataclass(frozen=True)
class Plane:
    """Where left and right meet.

    Attributes:
        axis: Array axis that runs closest to left-right.
        index: Voxels before this index along the axis lie on one side, the others on the other.
        right_first: Whether those before it are right.
    """

    axis: int
    index: int
    right_first: bool

    def half(self, side: Half) -> tuple[slice, ...]:
        """Index of a side's voxels in an array of three axes."""
        first = (side == "right") == self.right_first
        place = [slice(None)] * 3
        place[self.axis] = slice(0, self.index) if first else slice(self.index, None)
        return tuple(place)

    def on(self, side: Half, voxels: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which of some voxels, shape (N, 3), lie on a side."""
        before = voxels[:, self.axis] < self.index
        return before if (side == "right") == self.right_first else ~before


def structures_of(system: System) -> list[Structure]:
    """Labels, then groups, of a system; ``x_left`` and ``x_right`` are one structure ``x`` with two sides."""
    names: dict[str, list[str]] = {}
    for label in system.labels:
        names.setdefault(_without_side(label), []).append(label)
    found = [_structure(name, "label", members, system) for name, members in names.items()]
    return found + [_structure(name, "group", members, system) for name, members in system.groups.items()]


def parts_of(structures: Iterable[Structure], plane: Plane | None, only: Half | None = None) -> list[Part]:
    """Each structure on both sides together and, where they can be told apart, on each.

    Args:
        structures: Labels and groups.
        plane: Where the sides meet; None if nothing tells.
        only: The one side that is in the scan.
    """
    parts = []
    for structure in structures:
        parts.append(Part(structure, "both", structure.indices))
        if structure.by_side:
            parts += [Part(structure, side, indices) for side, indices in structure.by_side]
        elif only:
            parts.append(Part(structure, only, structure.indices))
        elif plane:
            parts += [Part(structure, side, structure.indices, side) for side in SIDES_APART]
    return parts


def find_plane(labels: NDArray[np.uint8], affine: Affine) -> Plane | None:
    """The mid-sagittal plane of a label map, where both sides are labelled.

    Near the middle of the labels' extent: the gap between the legs, or else the plane at which the amount of labelled
    voxels mirrors itself best. None where the labels are about as wide
    as they are deep, so that they may be those of one leg, and where there are none.

    Args:
        labels: Shape (X, Y, Z), any axis order.
        affine: Voxel index to RAS mm.
    """
    axes, signs = closest_axes(affine)
    inside = labels > 0
    profile = inside.sum(axis=tuple(a for a in range(3) if a != axes[0])).astype(float)
    depth = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axes[1])))
    width = np.flatnonzero(profile)
    if not len(width):
        return None
    steps_mm = np.linalg.norm(affine[:3, :3], axis=0)
    first, last = int(width[0]), int(width[-1])
    if (last - first + 1) * steps_mm[axes[0]] < _TWO_SIDES_WIDTH_TO_DEPTH * (np.ptp(depth) + 1) * steps_mm[axes[1]]:
        return None
    reach = max(1, round(_SEARCH_FRACTION * (last - first)))
    middle = (first + last + 1) / 2
    around = np.arange(int(middle) - reach, int(np.ceil(middle)) + reach + 1)
    around = around[(around > first) & (around <= last)]
    gap = around[profile[around] + profile[around - 1] <= _GAP_FRACTION * profile.max()]
    if len(gap):
        index = int(gap[np.argmin(np.abs(gap - middle))])
    else:
        index = int(min(around, key=lambda place: (_unlikeness(profile, place), abs(place - middle))))
    return Plane(axes[0], index, right_first=signs[0] < 0)


def _unlikeness(profile: NDArray[np.floating], place: int) -> float:
    """How much a profile differs from itself mirrored at a place between two voxels, by voxel."""
    reach = max(place, len(profile) - place)
    left, right = np.zeros(reach), np.zeros(reach)
    left[:place], right[: len(profile) - place] = profile[:place][::-1], profile[place:]
    return float(np.abs(left - right).sum())


def sides_of(labels: NDArray[np.uint8], affine: Affine, option: str) -> tuple[Plane | None, Half | None]:
    """What tells left from right in a label map: a plane, or that only one side is there.

    Raises:
        UserError: If the option is none of ``auto``, ``none``, ``left``, ``right``.
    """
    if option == "auto":
        return find_plane(labels, affine), None
    if option in SIDES_APART:
        return None, "left" if option == "left" else "right"
    if option != "none":
        raise UserError(f"--sides: expected auto, none, left or right, got {option!r}")
    return None, None


def _structure(name: str, kind: Literal["label", "group"], members: Iterable[str], system: System) -> Structure:
    members = list(members)
    indices = tuple(system.labels[member].index for member in members)
    by_side: list[tuple[Half, tuple[int, ...]]] = []
    if members and all(_without_side(member) != member for member in members):
        for side in SIDES_APART:
            of_side = tuple(system.labels[member].index for member in members if member.endswith(f"_{side}"))
            if of_side:
                by_side.append((side, of_side))
    return Structure(name, kind, indices, tuple(by_side))


def _without_side(name: str) -> str:
    return name.removesuffix("_left").removesuffix("_right")
