"""The quantities that a System can name, each a function of one case and one part of it.

Where a slice is chosen, areas, means and shares are those of that slice, as in Imani et al. 2025; volumes are those of
the range of slices around it that the system names, or none where the scan ends within. Without a choice all are of the
whole scan, and there is no area unless it has one slice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from msklabel.errors import UserError
from msklabel.measure.slab import COLUMN, HEIGHT, VOXELS
from msklabel.measure.structures import Part, Structure
from msklabel.measure.tally import ALL, Slices, Tally
from msklabel.system import ConfigError, System

NAN = float("nan")
HU, FAT = "hu", "fat_fraction_percent"  # names of the images that quantities need
SHARE = "_share_percent"
# Columns that are no quantity.
KEYS = ("scan", "structure", "kind", "side", "slice", COLUMN, HEIGHT, VOXELS, "note", "voxels")


@dataclass(frozen=True)
class Measured:
    """One case, ready to be measured.

    Attributes:
        tally: Its counts.
        system: Whose labels they are.
        height_m: Of the patient; NaN where it is not known.
        slices: The slice of each side that is measured, by ``both``, ``left`` and ``right``; empty: the whole scan.
        volume_slices: The slices that volumes are taken over; None: the scan does not hold them.
    """

    tally: Tally
    system: System
    height_m: float
    slices: Mapping[str, int]
    volume_slices: slice | None

    def at(self, part: Part) -> int | None:
        """The chosen slice of a part's side."""
        if self.tally.slices == 1:
            return 0
        return self.slices.get(part.side)

    def where(self, part: Part) -> Slices:
        """The chosen slice, or all."""
        at = self.at(part)
        return ALL if at is None else slice(at, at + 1)


def _volume(case: Measured, part: Part) -> float:
    return NAN if case.volume_slices is None else case.tally.volume_cm3(part, case.volume_slices)


def _volume_per_height2(case: Measured, part: Part) -> float:
    return _volume(case, part) * 1000 / case.height_m**2


def _area(case: Measured, part: Part) -> float:
    at = case.at(part)
    return NAN if at is None else case.tally.area_cm2(part, at)


def _mean_hu(case: Measured, part: Part) -> float:
    return case.tally.mean(HU, part, case.where(part))


def _mean_hu_per_height2(case: Measured, part: Part) -> float:
    return _mean_hu(case, part) / case.height_m**2


def _fat_fraction(case: Measured, part: Part) -> float:
    return case.tally.mean(FAT, part)


def _share(group: str) -> Callable[[Measured, Part], float]:
    """Share of each member in its group's voxels: HBM and MAT of total marrow (Imani et al. 2025, table 4)."""

    def share(case: Measured, part: Part) -> float:
        members = case.system.groups[group]
        if part.structure.name not in members or part.structure.kind != "label":
            return NAN
        indices = tuple(case.system.labels[name].index for name in members)
        whole = Part(Structure(group, "group", indices), part.side, indices, part.half)
        total = case.tally.voxels(whole, case.where(part))
        return 100 * case.tally.voxels(part, case.where(part)) / total if total else NAN

    return share


Quantity = Callable[[Measured, Part], float]
QUANTITIES: dict[str, Quantity] = {
    "volume_cm3": _volume,
    "volume_per_height2_mm3_per_m2": _volume_per_height2,
    "area_cm2": _area,
    "mean_hu": _mean_hu,
    "mean_hu_per_height2": _mean_hu_per_height2,
    FAT: _fat_fraction,
}
# Names as a CSV's header has them, where the quantity's own name leaves the unit out.
HEADERS = {"mean_hu": "mean_hu", "mean_hu_per_height2": "mean_hu_per_height2_hu_per_m2"}


def quantities_of(system: System) -> dict[str, Quantity]:
    """The quantities that a system names; ``<group>_share_percent`` is known for each of its groups.

    Raises:
        ConfigError: If it names one that is not known.
    """
    found: dict[str, Quantity] = {}
    for name in system.quantities:
        if name in QUANTITIES:
            found[name] = QUANTITIES[name]
        elif name.endswith(SHARE) and name.removesuffix(SHARE) in system.groups:
            found[name] = _share(name.removesuffix(SHARE))
        else:
            known = [*QUANTITIES, *(f"{group}{SHARE}" for group in system.groups)]
            raise ConfigError(f"{system.name}: quantities: {name!r} is not known; known: {', '.join(known)}")
    return found


def asymmetry_percent(left: float, right: float) -> float:
    """(left - right) over their mean, in %; NaN where both are 0."""
    mean = (left + right) / 2
    return float(100 * (left - right) / mean) if mean and np.isfinite(mean) else NAN


def height_m(height_cm: float | None) -> float:
    """Height in metres; NaN where it is not known.

    Raises:
        UserError: If it is 0 or less.
    """
    if height_cm is None or np.isnan(height_cm):
        return NAN
    if height_cm <= 0:
        raise UserError(f"a height must be above 0 cm, got {height_cm:g}")
    return height_cm / 100
