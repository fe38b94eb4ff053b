"""Whether left and right of a submitted label look exchanged: told by where it lies, and only ever a warning."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from msklabel.imaging.geometry import Affine

_SIDE = re.compile(r"(?:(?<=^)|(?<=_))(left|right)(?=_|$)")
_AGREES = 0.5  # Dice with the mirrored label from which on it is that structure at all
_BETTER = 0.2  # Dice by which the mirrored label must agree better


def exchanged_pairs(array: NDArray, affine: Affine, indices: Mapping[str, int]) -> list[tuple[str, str]]:
    """Pairs of labels, named ``left…`` and ``right…``, of which the left one lies to the right of the other.

    Args:
        array: Label indices, shape (X, Y, Z).
        affine: Voxel index to RAS mm, so that the first coordinate grows to the patient's right.
        indices: Index of each label.
    """
    found = []
    for left, index in indices.items():
        right = _SIDE.sub("right", left) if "left" in _SIDE.findall(left) else left
        if right != left and right in indices:
            places = [_mean_right_mm(array == number, affine) for number in (index, indices[right])]
            if None not in places and places[0] > places[1]:  # type: ignore[operator]
                found.append((left, right))
    return found


def looks_mirrored(array: NDArray, reference: NDArray, affine: Affine) -> bool:
    """Whether a label agrees far better with another one of its scan when it is mirrored from left to right.

    Args:
        array: The label's indices, shape (X, Y, Z).
        reference: Indices of the other; one of another shape, as of a scan that was replaced since, tells nothing.
        affine: Voxel index to RAS mm.
    """
    if array.shape != reference.shape:
        return False
    axis = int(np.argmax(np.abs(affine[0, :3])))
    as_it_is, mirrored = (_agreement(side, reference) for side in (array, np.flip(array, axis)))
    return mirrored >= _AGREES and mirrored > as_it_is + _BETTER


def _mean_right_mm(mask: NDArray, affine: Affine) -> float | None:
    places = np.argwhere(mask)
    return float(affine[0, :3] @ places.mean(axis=0) + affine[0, 3]) if len(places) else None


def _agreement(first: NDArray, second: NDArray) -> float:
    """Dice of all labels together: voxels that both give the same label."""
    labelled = np.count_nonzero(first) + np.count_nonzero(second)
    return 2 * np.count_nonzero((first == second) & (first != 0)) / labelled if labelled else 0.0
