"""Compare a predicted label map with the true one: a row for each structure and side.

Cases that a metric cannot speak of are named in the row's ``state`` and left empty, never filled in:

| state | truth | prediction | Dice | sensitivity | RAVD | distances |
|---|---|---|---|---|---|---|
| both | some | some | yes | yes | yes | yes |
| missed | some | none | 0 | 0 | -100 | empty |
| false_alarm | none | some | 0 | empty | empty | empty |
| absent | none | none | empty | empty | empty | empty |

A side's overlap counts the voxels on its side of the mid-sagittal plane. Its distances are those of the surface voxels
there from the whole other surface, so that the plane never adds a surface of its own; where either has no voxel on the
side they are empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from msklabel.errors import UserError
from msklabel.imaging.annotated import Annotated
from msklabel.imaging.geometry import Affine, closest_axes, spacing_mm
from msklabel.measure.overlap import confusion, counts_of, generalised_dice
from msklabel.measure.partial import LookedAt, looked_at
from msklabel.measure.structures import SIDES, SIDES_APART, Half, Part, Plane, parts_of, sides_of, structures_of
from msklabel.measure.surface import Points, SurfaceDistances, surface_distances, surfaces
from msklabel.system import System

_NONE: Points = np.empty((0, 3), np.int32)
_UNTOLD = SurfaceDistances(np.empty(0), np.empty(0))


@dataclass(frozen=True)
class Row:
    """How well a prediction fits one structure of one scan; NaN where a metric says nothing.

    Attributes:
        scan: Name of the pair.
        structure: Label or group; ``all`` for all labels at once.
        kind: ``label``, ``group`` or ``scan``.
        side: ``both``, ``left`` or ``right``.
        state: See the module.
        truth_cm3: NaN of radiographs, which have no volumes; so is ``predicted_cm3``.
        generalised_dice: Of the whole scan; with kind ``scan`` only.
    """

    scan: str
    structure: str
    kind: str
    side: str
    state: str
    truth_cm3: float
    predicted_cm3: float
    dice: float = float("nan")
    generalised_dice: float = float("nan")
    sensitivity: float = float("nan")
    specificity: float = float("nan")
    ravd_percent: float = float("nan")
    assd_mm: float = float("nan")
    hd_mm: float = float("nan")
    hd95_mm: float = float("nan")

    def as_dict(self) -> dict[str, object]:
        """Column names and values."""
        return asdict(self)


def evaluate_pair(
    scan: str,
    truth: NDArray[np.uint8],
    predicted: NDArray[np.uint8],
    affine: Affine,
    system: System,
    sides: str = "auto",
    annotated: Annotated | None = None,
) -> list[Row]:
    """Compare two label maps on one grid.

    Args:
        scan: Name for the rows.
        truth: Shape (X, Y, Z), any axis order.
        predicted: The same grid.
        affine: Voxel index to RAS mm.
        system: Names labels and groups; in 2D systems surfaces are contours in axial slices.
        sides: ``auto`` parts left from right by the truth; ``none``; or the one side that is there.
        annotated: What of the scan the truth speaks of; the rest of the prediction is not judged, see
            :mod:`msklabel.measure.partial`.

    Raises:
        UserError: If a label map holds a value that the system does not have.
        ValueError: If the shapes differ.
    """
    for name, labels in (("truth", truth), ("prediction", predicted)):
        require_known(labels, system, f"{scan}: the {name}")
    seen = looked_at(annotated, system, truth.shape, affine)
    truth, predicted = seen.only(truth), seen.only(predicted)
    plane, only = sides_of(truth, affine, sides)
    tables = _tables(truth, predicted, system.classes, plane, seen)
    whole = tables[None]
    voxel_cm3 = float("nan") if system.of_projections else abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    parts = [part for part in parts_of(structures_of(system), plane, only) if seen.counts(part)]
    across = closest_axes(affine)[0][2]
    told = seen.whole or (system.dimensions == 2 and seen.axis == across)
    distances = _distances(truth, predicted, parts, plane, affine, system) if told else {}
    rows = [_scan_row(scan, whole, voxel_cm3)]
    for part in parts:
        counts = counts_of(tables[part.half], part.indices)
        found = distances.get(part, _UNTOLD)
        rows.append(
            Row(
                scan=scan,
                structure=part.structure.name,
                kind=part.structure.kind,
                side=part.side,
                state=counts.state,
                truth_cm3=counts.truth * voxel_cm3,
                predicted_cm3=counts.predicted * voxel_cm3,
                dice=counts.dice,
                sensitivity=counts.sensitivity,
                specificity=counts.specificity,
                ravd_percent=counts.ravd_percent,
                assd_mm=found.assd_mm,
                hd_mm=found.hd_mm,
                hd95_mm=found.hd95_mm,
            )
        )
    return sorted(rows, key=lambda row: (("scan", "label", "group").index(row.kind), SIDES.index(row.side)))


def require_known(labels: NDArray[np.uint8], system: System, what: str) -> None:
    """Refuse a label map with values that a system does not have.

    Raises:
        UserError: Names the values.
    """
    highest = system.classes - 1
    if labels.max() > highest:
        unknown = [int(value) for value in np.unique(labels) if value > highest]
        raise UserError(f"{what} holds {unknown}, but {system.name} has the labels 1 to {highest} only")


def _tables(
    truth: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: int, plane: Plane | None, seen: LookedAt
) -> dict[Half | None, NDArray[np.int64]]:
    """The confusion table of the whole scan (None) and of each half, over the slices that were looked at."""
    tables: dict[Half | None, NDArray[np.int64]] = {}
    for side in SIDES_APART if plane else (None,):
        half = plane.half(side) if plane and side else (slice(None),) * 3
        tables[side] = confusion(truth[half], predicted[half], classes)
        tables[side][0, 0] -= seen.passed_over(truth.shape, half)
    if plane is None:
        return tables
    return {**tables, None: tables["left"] + tables["right"]}


def _distances(
    truth: NDArray[np.uint8],
    predicted: NDArray[np.uint8],
    parts: Sequence[Part],
    plane: Plane | None,
    affine: Affine,
    system: System,
) -> dict[Part, SurfaceDistances]:
    """Distances of each part; the surfaces of all sets of labels that share no label are found in one pass."""
    across = closest_axes(affine)[0][2] if system.dimensions == 2 else None
    spacing = spacing_mm(affine)
    found: dict[Part, SurfaceDistances] = {}
    for sets in _passes({part.indices for part in parts}):
        table = np.zeros(256, np.uint8)
        for number, indices in enumerate(sets, start=1):
            table[list(indices)] = number
        edges = [surfaces(_mapped(labels, table), across) for labels in (truth, predicted)]
        for number, indices in enumerate(sets, start=1):
            first, second = (edge.get(number, _NONE) for edge in edges)
            whole = surface_distances(first, second, spacing)
            for part in parts:
                if part.indices == indices:
                    found[part] = _on_side(whole, first, second, part.half, plane)
    return found


def _on_side(
    whole: SurfaceDistances, truth: Points, predicted: Points, half: Half | None, plane: Plane | None
) -> SurfaceDistances:
    if half is None or plane is None or not len(whole.truth_mm):
        return whole
    return SurfaceDistances(
        whole.truth_mm[plane.on(half, truth)],
        whole.predicted_mm[plane.on(half, predicted)],
    )


def _passes(sets: Iterable[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    """Sets of labels, put together with others that share no label with them."""
    passes: list[list[tuple[int, ...]]] = []
    for indices in sorted(sets, key=lambda members: (len(members), members)):
        free = (group for group in passes if not any(set(indices) & set(other) for other in group))
        group = next(free, None)
        if group is None:
            passes.append([indices])
        else:
            group.append(indices)
    return passes


def _mapped(labels: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    identity = np.arange(256, dtype=np.uint8)
    return labels if np.array_equal(table[: labels.max() + 1], identity[: labels.max() + 1]) else table[labels]


def _scan_row(scan: str, table: NDArray[np.int64], voxel_cm3: float) -> Row:
    counts = counts_of(table, range(1, len(table)))
    return Row(
        scan=scan,
        structure="all",
        kind="scan",
        side="both",
        state=counts.state,
        truth_cm3=counts.truth * voxel_cm3,
        predicted_cm3=counts.predicted * voxel_cm3,
        generalised_dice=generalised_dice(table),
    )
