"""Fill a label between the slices that were drawn: which label, what its values mean, which slices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msklabel.errors import UserError
from msklabel.imaging.annotated import Annotated
from msklabel.imaging.read import read_labels
from msklabel.imaging.scan import LabelMap
from msklabel.pipeline.between_slices import drawn_slices, fill_between
from msklabel.store.headers import segment_names
from msklabel.store.values import stated, value_names
from msklabel.system import System

ANY_SYSTEM = "any"
FIND_AXIS = "find"


@dataclass(frozen=True)
class StoredLabel:
    """A label of the store: its file, the name of its system, and what it speaks of."""

    file: Path
    system: str
    annotated: Annotated


@dataclass(frozen=True)
class Drawn:
    """A label with gaps.

    Attributes:
        labels: As drawn.
        names: Voxel value of each label, as far as known.
        system: Name of the system whose indices the voxels are; None where nothing says it.
        axis: Along which slices were drawn; None to find it.
        slices: Indices of those that were drawn; None to find them.
        classes: Names of the labels that were looked for; None for all.
    """

    labels: LabelMap
    names: dict[str, int]
    system: str | None = None
    axis: int | None = None
    slices: tuple[int, ...] | None = None
    classes: tuple[str, ...] | None = None


def fill(drawn: Drawn) -> tuple[LabelMap, dict[str, Any]]:
    """Fill a label; returns it and what was done: ``axis``, ``drawn_slices`` and the number of ``filled_slices``.

    Raises:
        UserError: If there is nothing to interpolate between.
    """
    array = drawn.labels.array
    if drawn.axis is not None and drawn.slices is not None:
        axis, slices = drawn.axis, drawn.slices
    elif drawn.slices is not None:
        raise UserError("axis: needed with slices, 0 to 2 in the order of the file")
    else:
        axis, slices = drawn_slices(array, drawn.axis)
    values = None if drawn.classes is None else [drawn.names[name] for name in drawn.classes]
    filled = fill_between(array, slices, axis, values)
    facts = {"axis": axis, "drawn_slices": list(slices), "filled_slices": int(np.ptp(slices)) + 1 - len(slices)}
    return LabelMap(filled, drawn.labels.affine), facts


def read_drawn(
    file: Path,
    systems: Mapping[str, System],
    system: str = "",
    request: Mapping[str, Any] | None = None,
    annotated: Annotated | None = None,
) -> Drawn:
    """Read a label that is to be filled.

    Args:
        file: The label.
        systems: Systems that it may belong to.
        system: The one that it does belong to; empty where nobody says. Its values are kept as they are, and named by
            its header or the request.
        request: May hold ``axis``, ``slices`` and ``label_info``.
        annotated: What is known of its slices and classes; the request's ``slices`` come first.

    Raises:
        UserError: If it cannot be read, or the request says what cannot be.
    """
    request, annotated = request or {}, annotated or Annotated()
    labels = read_labels(file)
    present = labels.present()
    axis, slices = _axis(request.get("axis")), _slices(request.get("slices"))
    if slices is None and annotated.slices is not None:
        axis, slices = annotated.slice_axis, annotated.slices
    if not system and len(systems) == 1:
        (only,) = systems.values()
        system = only.name if set(present) <= set(only.label_indices.values()) else ""
    if system:
        names = systems[system].label_indices
        if foreign := [value for value in present if value not in names.values()]:
            raise UserError(f"voxel values {foreign} are no labels of {system}")
    else:
        said = value_names(present, stated(request.get("label_info")), segment_names(file)) or {}
        names = {name: value for value, name in said.items()}
    return Drawn(labels, names, system or None, axis, slices, annotated.classes if system else None)


def _axis(value: Any) -> int | None:
    if value in (None, "", FIND_AXIS):
        return None
    if str(value) not in ("0", "1", "2"):
        raise UserError(f"axis: expected 0, 1, 2 or {FIND_AXIS}, got {value!r}")
    return int(value)


def _slices(value: Any) -> tuple[int, ...] | None:
    if not value:
        return None
    if not isinstance(value, list | tuple) or not all(type(index) is int for index in value):
        raise UserError(f"slices: expected a list of indices from 0, got {value!r}")
    return tuple(sorted(set(value)))
