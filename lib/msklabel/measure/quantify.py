"""Measure one labelled scan: what its System names, for each structure and side. A pure function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msklabel.errors import UserError
from msklabel.imaging.annotated import Annotated
from msklabel.imaging.geometry import Affine, closest_axes, spacing_mm
from msklabel.measure.evaluate import require_known
from msklabel.measure.femur import along_femur, femora_of, slices_at_percent
from msklabel.measure.partial import LookedAt, looked_at, withhold
from msklabel.measure.quantities import FAT, HEADERS, HU, NAN, Measured, asymmetry_percent, height_m, quantities_of
from msklabel.measure.reference_slice import NoSlice, thickest_neck
from msklabel.measure.slab import COLUMN, HEIGHT, VOXELS, is_volume, span_words
from msklabel.measure.structures import SIDES, SIDES_APART, Half, Part, Plane, parts_of, sides_of, structures_of
from msklabel.measure.tally import ALL, Tally, tally
from msklabel.system import System

_METAL_HU = 2500  # above the densest bone
_METAL_VOXELS = 10


@dataclass(frozen=True)
class SliceChoice:
    """Which slice areas are measured in.

    Attributes:
        kind: ``default`` (the system's reference slice where it has one), ``none``, ``index`` from the lowest slice,
            ``percent`` of the femur from its upper end, ``neck``, or ``unknown``: the one asked for was not found.
        value: The index or percentage.
        side: Of ``neck``: whose; None: the system's.
    """

    kind: str = "default"
    value: float = 0.0
    side: Half | None = None


@dataclass(frozen=True)
class Quantified:
    """What was measured of a scan.

    Attributes:
        rows: One for each structure and side: ``scan``, ``structure``, ``kind``, ``side``; ``slice`` where areas, means
            and shares are of one; ``volume_slices``, their height, ``slab_mm``, and the voxels in them,
            ``slab_voxels``, where the system's volumes are of a slab; ``voxels`` in the whole scan; quantities with
            units.
        profile: One for each slice, structure and side that is in it.
        slices: The chosen slice by side, counted from the lowest; empty if none was chosen.
        notes: What could not be measured, and why.
        volume_slices: First and last slice that volumes are taken over, of a system that has a reference slice; None:
            the whole scan in other systems, and in these no volume can be told.
        missing: Why a side has no chosen slice, while another one has.
    """

    rows: list[dict[str, Any]]
    profile: list[dict[str, Any]]
    slices: dict[str, int]
    notes: list[str] = field(default_factory=list)
    volume_slices: tuple[int, int] | None = None
    missing: Mapping[str, str] = field(default_factory=dict)


def quantify(
    scan: str,
    labels: NDArray[np.uint8],
    affine: Affine,
    system: System,
    images: Mapping[str, NDArray[Any]] | None = None,
    height_cm: float | None = None,
    choice: SliceChoice | None = None,
    sides: str = "auto",
    annotated: Annotated | None = None,
) -> Quantified:
    """Measure a label map and the images under it.

    Args:
        scan: Name for the rows.
        labels: Shape (X, Y, Z), any axis order.
        affine: Voxel index to RAS mm.
        system: Says which quantities.
        images: ``hu`` and ``fat_fraction_percent``, as far as they are there, of the same shape; NaN: says nothing.
        height_cm: Of the patient, where quantities are divided by its square.
        choice: Which slice areas are measured in.
        sides: ``auto``, ``none``, ``left`` or ``right``.
        annotated: What of the scan the label speaks of; see :mod:`msklabel.measure.partial`.

    Raises:
        NoSlice: If the chosen slice is not to be found in this scan.
        UserError: If a label is unknown, the height is 0, or no scan of the system has such a slice.
    """
    require_known(labels, system, f"{scan}: the label map")
    images = images or {}
    seen = looked_at(annotated, system, labels.shape, affine)
    labels = seen.only(labels)
    plane, only = sides_of(labels, affine, sides)
    table = tally(labels, affine, system.classes, plane, images)
    every = parts_of(structures_of(system), plane, only)
    parts = [part for part in every if seen.counts(part)]
    choice = choice or SliceChoice()
    if choice.kind == "percent" and not seen.whole:
        raise NoSlice(f"a percentage of the femur cannot be told: {seen.words()}")
    kind = _kind(choice, system, table)
    femora = femora_of(labels, affine, system, table, plane, only)
    missing: dict[str, str] = {}
    if kind == "percent":
        slices, missing = slices_at_percent(femora, choice.value, system)
    else:
        slices = _chosen(kind, choice, table, labels, affine, system, plane, only)
    volumes = _slab(kind, slices, table, system)
    case = Measured(table, system, height_m(height_cm), slices, volumes)
    span = _span(volumes, table) if system.reference_slice is not None else None
    wanted = quantities_of(system)
    rows: list[dict[str, Any]] = []
    for part in parts:
        row: dict[str, Any] = {"scan": scan, "structure": part.structure.name, "kind": part.structure.kind}
        within = {} if span is None else {VOXELS: table.voxels(part, slice(span[0], span[1] + 1))}
        row |= {"side": part.side, **within, "voxels": table.voxels(part)}
        told = {HEADERS.get(name, name): quantity(case, part) for name, quantity in wanted.items()}
        lost = kind == "unknown" or part.side in missing
        row |= {name: NAN if lost and _needs_slice(name) else value for name, value in told.items()}
        row |= {"note": f"{scan}: {missing[part.side]}"} if part.side in missing else {}
        withhold(row, seen, case.at(part), ALL if volumes is None else volumes)
        rows.append(_with_slices(row, slices, span, table))
    _add_asymmetry(rows)
    notes = _partial_notes(scan, every, seen)
    if kind == "unknown":
        rest = "nothing but voxels" if system.reference_slice else "nothing of a slice"
        notes.append(f"{scan}: {rest}: the slice that {system.name} is measured in was not found")
    else:
        notes += [*_notes(scan, case, parts, images, set(wanted)), *_no_slab(scan, case), *_cut_off(scan, case, parts)]
    notes += [f"{scan}: nothing of a slice, {side}: {why}" for side, why in missing.items() if side != "both"]
    notes += _metal(scan, labels, affine, images, case.slices)
    along = along_femur(femora) if seen.whole else {}
    return Quantified(rows, _profile(scan, table, parts, along), dict(slices), notes, span, missing)


def _needs_slice(name: str) -> bool:
    """Whether a column is told from one slice: not volumes, which a slab has or the whole scan, nor fat fractions."""
    return not is_volume(name) and name != FAT


def _partial_notes(scan: str, every: list[Part], seen: LookedAt) -> list[str]:
    notes = [] if seen.whole else [f"{scan}: {seen.words()}; what needs the others is left out"]
    missing = dict.fromkeys(part.structure.name for part in every if not seen.counts(part))
    return notes + ([f"{scan}: not looked for: {', '.join(missing)}"] if missing else [])


def _with_slices(
    row: Mapping[str, Any], slices: Mapping[str, int], span: tuple[int, int] | None, table: Tally
) -> dict[str, Any]:
    """A row that says, behind its side, in which slice and over which slices it was measured, where not in all."""
    keys = {name: row[name] for name in ("scan", "structure", "kind", "side")}
    at = {"slice": slices[row["side"]]} if row["side"] in slices else {}
    over = {}
    if span is not None:
        over = {COLUMN: span_words(span), HEIGHT: (span[1] - span[0] + 1) * table.slice_mm}
    return {**keys, **at, **over, **row}


def _add_asymmetry(rows: list[dict[str, Any]]) -> None:
    """Put the left-right asymmetry of volumes, or of areas where there are no volumes, on the rows of both sides."""
    by_key = {(row["structure"], row["kind"], row["side"]): row for row in rows}
    for (structure, kind, side), row in by_key.items():
        pair = [by_key.get((structure, kind, half)) for half in SIDES_APART]
        if side != "both" or pair[0] is None or pair[1] is None:
            continue
        for name in ("volume_cm3", "area_cm2"):
            if name in row:
                row[f"{name.split('_')[0]}_asymmetry_percent"] = asymmetry_percent(pair[0][name], pair[1][name])


def _profile(
    scan: str, table: Tally, parts: list[Part], along: Mapping[str, NDArray[np.float64] | None]
) -> list[dict[str, Any]]:
    """Area and means of every structure in each slice that it is in, and where along the femur, if that is whole."""
    rows = []
    for part in parts:
        place = along.get(part.side)
        for z in np.flatnonzero(table.profile(part)):
            here = slice(int(z), int(z) + 1)
            row: dict[str, Any] = {"scan": scan, "structure": part.structure.name, "kind": part.structure.kind}
            row |= {"side": part.side}
            row |= {"slice": int(z), "z_mm": float(table.z_mm[z]), "area_cm2": table.area_cm2(part, int(z))}
            if place is not None:
                row["femur_percent"] = float(place[z])
            row |= {f"mean_{name}": table.mean(name, part, here) for name in table.sums}
            rows.append(row)
    return rows


def _kind(choice: SliceChoice, system: System, table: Tally) -> str:
    """The kind of choice that is made; a system without a rule has no slice of its own."""
    if choice.kind == "default":
        if system.reference_slice is None:
            return "none"
        return "neck" if table.slices > 1 else "only"
    return choice.kind


def _chosen(
    kind: str,
    choice: SliceChoice,
    table: Tally,
    labels: NDArray[np.uint8],
    affine: Affine,
    system: System,
    plane: Plane | None,
    only: Half | None,
) -> dict[str, int]:
    """The slice of each side, of all choices but a percentage; empty without one."""
    if kind in ("none", "unknown"):
        return {}
    if kind == "only":
        return dict.fromkeys(SIDES, 0)
    if kind == "index":
        index = int(choice.value)
        if not 0 <= index < table.slices:
            raise NoSlice(f"slice {index}: the scan has the slices 0 to {table.slices - 1}")
        return dict.fromkeys(SIDES, index)
    rule = system.reference_slice
    if rule is None:
        raise UserError(f"{system.name} has no rule for a reference slice; give a slice or a percentage of the femur")
    return dict.fromkeys(SIDES, _neck_slice(labels, affine, system, plane, only, choice.side or rule.side))


def _slab(kind: str, slices: Mapping[str, int], table: Tally, system: System) -> slice | None:
    """The slices that volumes are taken over; None where the scan does not hold all of them, or nobody knows which."""
    if kind == "unknown" and system.reference_slice is not None:
        return None
    if kind not in ("neck", "only") or system.reference_slice is None:
        return ALL
    low, high = (slices["both"] + sense * system.reference_slice.margin_slices for sense in (-1, 1))
    return slice(low, high + 1) if low >= 0 and high < table.slices else None


def _span(volumes: slice | None, table: Tally) -> tuple[int, int] | None:
    if volumes is None:
        return None
    over = np.arange(table.slices)[volumes]
    return int(over[0]), int(over[-1])


def _neck_slice(
    labels: NDArray[np.uint8], affine: Affine, system: System, plane: Plane | None, only: Half | None, side: Half
) -> int:
    """Slice of one side's thickest femoral neck, counted from the lowest."""
    if plane is None and only is None:
        raise NoSlice(
            "the reference slice's side cannot be told: the labels show no mid-sagittal plane; say which (--sides left)"
        )
    if only not in (None, side):
        raise NoSlice(f"the reference slice is that of the {side} side, and only the {only} one is there")
    assert system.reference_slice is not None  # the caller has looked
    members = [name for group in system.reference_slice.bone for name in system.groups[group]]
    table = np.zeros(256, bool)
    table[[system.labels[name].index for name in members]] = True
    axes, signs = closest_axes(affine)
    half = labels[plane.half(side)] if plane else labels
    bone = table[half].transpose(axes)
    lateral = signs[0] * (1 if side == "right" else -1)  # sense in which axis 0 runs outwards
    bone = bone[::lateral, :: signs[1], :: signs[2]]
    x, y, z = (spacing_mm(affine)[axis] for axis in axes)
    return thickest_neck(bone, (x, y, z)).index


def _notes(
    scan: str, case: Measured, parts: list[Part], images: Mapping[str, NDArray[Any]], wanted: set[str]
) -> list[str]:
    notes = []
    needs = {"mean_hu": "hu", "mean_hu_per_height2": "hu", "fat_fraction_percent": "fat_fraction_percent"}
    for name in sorted(wanted):
        if name in needs and needs[name] not in images:
            notes.append(f"{scan}: no {name}: there is no {_image_words(needs[name])}")
        elif "per_height2" in name and np.isnan(case.height_m):
            notes.append(f"{scan}: no {name}: the height is not known")
        elif name == "area_cm2" and not case.slices and case.tally.slices > 1:
            notes.append(f"{scan}: no {name}: no slice was chosen")
    for image in images:
        for part in parts:
            if part.structure.kind == "label" and part.side == "both" and case.tally.silent_voxels(image, part):
                silent, whole = case.tally.silent_voxels(image, part), case.tally.voxels(part)
                notes.append(
                    f"{scan}: {image} of {part.structure.name} leaves out {silent} of {whole} voxels without signal"
                )
    return notes


def _no_slab(scan: str, case: Measured) -> list[str]:
    """Say that the slab which volumes are of is cut by the end of the scan."""
    names = ", ".join(name for name in case.system.quantities if is_volume(name))
    rule = case.system.reference_slice
    if case.volume_slices is not None or rule is None or not names:
        return []
    at = case.slices["both"]
    there = min(case.tally.slices, at + rule.margin_slices + 1) - max(0, at - rule.margin_slices)
    wanted = 2 * rule.margin_slices + 1
    return [f"{scan}: no {names}: it is of {wanted} slices around slice {at}, and {there} of them are in the scan"]


def _cut_off(scan: str, case: Measured, parts: list[Part]) -> list[str]:
    """Say of which structures a part lies outside the scan, where their volume is taken over all of it."""
    labels = [part for part in parts if part.structure.kind == "label" and part.side == "both"]
    if case.tally.slices == 1 or case.volume_slices != ALL or not any(map(is_volume, case.system.quantities)):
        return []
    cut = [part.structure.name for part in labels if case.tally.profile(part)[[0, -1]].any()]
    if not cut:
        return []
    return [f"{scan}: in the first or last slice, so that volumes are of the part inside the scan: {', '.join(cut)}"]


def _metal(
    scan: str, labels: NDArray[np.uint8], affine: Affine, images: Mapping[str, NDArray[Any]], slices: Mapping[str, int]
) -> list[str]:
    """Say that something in the measured part is denser than any bone."""
    if HU not in images:
        return []
    axes, signs = closest_axes(affine)
    hu, inside = (np.moveaxis(array, axes[2], 0)[:: signs[2]] for array in (images[HU], labels > 0))
    dense = hu > _METAL_HU
    at = sorted(set(slices.values())) or np.flatnonzero(inside.any(axis=(1, 2))).tolist()
    count = int(dense[at].sum())
    if count < _METAL_VOXELS:
        return []
    where = f"slice {', '.join(map(str, at))}" if slices else "the scan"
    return [f"{scan}: {count} voxels above {_METAL_HU} HU in {where}: metal, which spoils HU and thresholds around it"]


def _image_words(name: str) -> str:
    return {"hu": "CT image", "fat_fraction_percent": "pair of water and fat images"}[name]
