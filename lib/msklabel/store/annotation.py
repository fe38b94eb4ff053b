"""What a submission says that it speaks of: checked, and as it is kept with the label version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from msklabel.errors import UserError
from msklabel.imaging.annotated import Annotated
from msklabel.store.database import Database
from msklabel.store.schema import LabelVersion
from msklabel.system import System

_KEYS = ("classes", "slices", "axis")


def read_annotated(said: Any, system: System, shape: Sequence[int]) -> Annotated:
    """Read ``{"classes": [name, ...], "slices": [index, ...], "axis": 0..2}``; what is left out or null means all.

    Args:
        said: From the request; None is everything.
        system: Whose labels they are.
        shape: Voxels along each axis of the scan.

    Raises:
        UserError: If a class is none of the system or a slice none of the scan; names it.
    """
    if said is None:
        return Annotated()
    if not isinstance(said, Mapping) or (unknown := sorted(set(said) - set(_KEYS))):
        got = f"the key {unknown[0]!r}" if isinstance(said, Mapping) else type(said).__name__
        raise UserError(f"annotated: expected an object with {', '.join(_KEYS)}, got {got}")
    axis = said.get("axis", 2)
    if not _is_whole(axis) or not 0 <= axis < len(shape):
        raise UserError(f"annotated.axis: expected 0 to {len(shape) - 1}, got {axis!r}")
    classes = _listed(said, "classes", "names of labels", lambda name: isinstance(name, str))
    foreign = [name for name in classes or () if name not in system.labels]
    if foreign:
        raise UserError(f"annotated.classes: {foreign[0]!r} is no label of {system.name}: {', '.join(system.labels)}")
    slices = _listed(said, "slices", "indices of slices", _is_whole)
    outside = [index for index in slices or () if not 0 <= index < shape[axis]]
    if outside:
        raise UserError(
            f"annotated.slices: {outside[0]} is outside the scan, which has slices 0 to {shape[axis] - 1} along axis "
            f"{axis}"
        )
    if classes is not None and set(classes) == system.labels.keys():
        classes = None
    return Annotated(
        classes=tuple(name for name in system.labels if name in classes) if classes is not None else None,
        slices=tuple(sorted(set(slices))) if slices is not None else None,
        slice_axis=axis,
    )


def check_inside(annotated: Annotated, array: NDArray, classes: Sequence[str]) -> None:
    """Refuse a label that has voxels where it says that nobody looked.

    Args:
        annotated: What it speaks of.
        array: The label, shape (X, Y, Z); 0 is background.
        classes: Names of the labels that occur in it.

    Raises:
        UserError: Names the class or the slice.
    """
    if annotated.classes is not None:
        stray = [name for name in classes if name not in annotated.classes]
        if stray:
            raise UserError(f"the label has voxels of {stray[0]!r}, which is not among annotated.classes")
    if annotated.slices is not None:
        others = tuple(axis for axis in range(array.ndim) if axis != annotated.slice_axis)
        drawn = np.flatnonzero(array.any(axis=others)).tolist()
        beside = sorted(set(drawn) - set(annotated.slices))
        if beside:
            raise UserError(f"the label has voxels in slice {beside[0]}, which is not among annotated.slices")


def to_json(annotated: Annotated) -> dict[str, Any] | None:
    """As it is kept; None where nothing is left out."""
    if annotated.complete:
        return None
    kept: dict[str, Any] = {"axis": annotated.slice_axis}
    if annotated.classes is not None:
        kept["classes"] = list(annotated.classes)
    if annotated.slices is not None:
        kept["slices"] = list(annotated.slices)
    return kept


def annotated_of(version: LabelVersion) -> Annotated:
    """What a label version speaks of."""
    return annotated_as(version.annotated)


def annotated_as(stored: Mapping[str, Any] | None) -> Annotated:
    """What is stored of what a label speaks of; nothing for everything."""
    kept = stored or {}
    classes, slices = kept.get("classes"), kept.get("slices")
    return Annotated(
        classes=None if classes is None else tuple(classes),
        slices=None if slices is None else tuple(slices),
        slice_axis=kept.get("axis", 2),
    )


def partial(database: Database) -> dict[str, Annotated]:
    """What label versions speak of, by checksum, where that is not everything; the newest of one content counts."""
    query = select(LabelVersion).where(LabelVersion.annotated.is_not(None)).order_by(LabelVersion.id)
    with database.read() as session:
        return {version.sha256: annotated_of(version) for version in session.scalars(query)}


def _listed(said: Mapping[str, Any], key: str, what: str, fits: Any) -> list[Any] | None:
    values = said.get(key)
    if values is None:
        return None
    if not isinstance(values, list) or not values or not all(fits(value) for value in values):
        raise UserError(f"annotated.{key}: expected a list of {what}, at least one")
    return values


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
