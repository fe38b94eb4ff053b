"""A label whose sides look exchanged is kept, with a warning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from store_samples import SHAPE, blocks, scan, store, write

from msklabel.store.sides import exchanged_pairs, looks_mirrored

INDICES = {"left_femur": 1, "right_femur": 2, "femoral_head_left": 3, "femoral_head_right": 4, "spine": 5}
TO_THE_RIGHT, TO_THE_LEFT = np.diag([1.0, 1, 1, 1]), np.diag([-1.0, 1, 1, 1])


@pytest.mark.parametrize(
    ("values", "affine", "pairs"),
    [
        ([1, 5, 2], TO_THE_RIGHT, []),
        ([2, 5, 1], TO_THE_RIGHT, [("left_femur", "right_femur")]),
        ([2, 5, 1], TO_THE_LEFT, []),
        ([1, 5, 2], TO_THE_LEFT, [("left_femur", "right_femur")]),
        ([4, 0, 3], TO_THE_RIGHT, [("femoral_head_left", "femoral_head_right")]),
        ([1, 0, 0], TO_THE_LEFT, []),
        ([5, 0, 4], TO_THE_LEFT, []),
    ],
)
def test_left_lies_left_of_right(values: list[int], affine: np.ndarray, pairs: list[tuple[str, str]]) -> None:
    array = np.array(values, np.uint8).reshape(3, 1, 1)
    assert exchanged_pairs(array, affine, INDICES) == pairs


def test_the_axis_from_left_to_right_is_found_in_the_matrix() -> None:
    affine = np.array([[0, -2.0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    array = np.zeros((2, 6, 2), np.uint8)
    array[:, :2] = 1
    assert looks_mirrored(np.flip(array, 1), array, affine)
    assert not looks_mirrored(np.flip(array, 0), array, affine)
    assert not looks_mirrored(array, array, affine)


def test_a_label_that_mirrors_the_draft_is_kept_and_warned_of(tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    scan(studies / "a.nii.gz")
    data = store(studies)
    draft = blocks(1, 5)
    assert draft.shape == SHAPE
    data.submit("a", write(tmp_path / "draft.nii.gz", draft), "original", {})
    assert data.submit("a", write(tmp_path / "good.nii.gz", draft), "final", {}).warnings == []
    version = data.submit("a", write(tmp_path / "bad.nii.gz", np.flip(draft, 0)), "final", {})
    assert version.warnings == ["the label agrees far better with the automatic one when left and right are exchanged"]
    assert data.get_label_info("a", "final")["warnings"] == version.warnings


def test_a_draft_of_the_scan_that_was_there_before_is_no_obstacle(tmp_path: Path) -> None:
    scan(tmp_path / "s" / "a.nii.gz")
    data = store(tmp_path / "s")
    data.submit("a", write(tmp_path / "l.nii.gz", blocks(1)), "original", {})
    shape = (5, 6, 7)
    write(tmp_path / "s" / "a.nii.gz", np.zeros(shape, np.int16))
    data.refresh()
    kept = data.submit("a", write(tmp_path / "l.nii.gz", np.ones(shape, np.uint8)), "final", {})
    assert kept.warnings == []
