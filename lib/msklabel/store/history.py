"""What became of a scan's labels: versions with their reviews, and what changed from one to another."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msklabel.errors import UserError
from msklabel.imaging.read import read_labels
from msklabel.store.labels import Labels
from msklabel.store.reviews import Review, Reviews
from msklabel.store.schema import LabelVersion
from msklabel.system import System

_COLUMNS = ("tag", "system", "author", "origin", "base_model", "sha256", "classes", "annotated", "warnings", "state")


def history(labels: Labels, reviews: Reviews, image_id: str, tag: str | None = None) -> list[dict[str, Any]]:
    """All versions on an image, the removed ones too, oldest first, each with its reviews."""
    versions = labels.history(image_id, tag)
    said = reviews.of(version.id for version in versions)
    return [describe(version, said[version.id]) for version in versions]


def to_review(
    labels: Labels, reviews: Reviews, system: str | None = None, held: bool = False, most: int = 100
) -> list[dict[str, Any]]:
    """What waits for a reviewer, labels that a training holds back first; ``held`` is why, None where it does not."""
    versions = labels.to_review([system] if system else None, held, most)
    ids = [version.id for version in versions]
    said, why = reviews.of(ids), reviews.held(ids)
    return [{**describe(version, said[version.id]), "held": why.get(version.id)} for version in versions]


def describe(version: LabelVersion, reviews: list[Review]) -> dict[str, Any]:
    """A version as plain JSON."""
    told = {"version": version.id, "image": version.image_id}
    told |= {name: getattr(version, name) for name in _COLUMNS}
    told |= {"created": version.created.isoformat(), "withdrawn": _time(version.withdrawn)}
    events = [
        {"state": review.state, "reason": review.reason, "who": review.who, "created": review.created.isoformat()}
        for review in reviews
    ]
    return {**told, "reviews": events}


def difference(labels: Labels, systems: Mapping[str, System], a: int, b: int) -> dict[str, Any]:
    """What changed from version ``a`` to version ``b`` of a label.

    Args:
        labels: All versions.
        systems: The systems that are served, by name.
        a: Id of the one version.
        b: Id of the other.

    Returns:
        ``changed_voxels`` in all, and for each class that either has: voxels ``before``, ``after``, ``added``,
        ``removed``.

    Raises:
        UserError: If they are of two scans or two systems, or of two sizes.
        NotFound: If there is no such version.
    """
    first, second = labels.get(a), labels.get(b)
    if first.image_id != second.image_id or first.system != second.system:
        raise UserError(
            f"version {a} is of {first.image_id!r} and {first.system}, version {b} of {second.image_id!r} and "
            f"{second.system}: only labels of one scan and one system can be compared"
        )
    before, after = (read_labels(labels.file(version)).array for version in (first, second))
    if before.shape != after.shape:
        sizes = [" x ".join(map(str, array.shape)) for array in (before, after)]
        raise UserError(f"version {a} has {sizes[0]} voxels, version {b} {sizes[1]}: the scan was replaced meanwhile")
    indices = systems[first.system].label_indices if first.system in systems else {}
    return {
        "a": a,
        "b": b,
        "changed_voxels": int(np.count_nonzero(before != after)),
        "classes": changed_voxels(before, after, indices),
    }


def changed_voxels(before: NDArray, after: NDArray, indices: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Voxels of each class in two label maps of one shape, and how many came and went."""
    names = {index: name for name, index in indices.items()}
    classes = {}
    for index in np.union1d(np.unique(before), np.unique(after)).tolist():
        if index:
            old, new = before == index, after == index
            counts = {"before": old, "after": new, "added": new & ~old, "removed": old & ~new}
            classes[names.get(index, str(index))] = {key: int(np.count_nonzero(m)) for key, m in counts.items()}
    return classes


def _time(value: datetime | None) -> str | None:
    return value.isoformat() if value else None
