"""Labels are filled between the slices that were drawn, and those stay as they are."""

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from msklabel.catalogue import load_catalogue
from msklabel.errors import UserError
from msklabel.imaging.annotated import Annotated
from msklabel.pipeline.between_slices import drawn_slices, fill_between
from msklabel.predict.engine import dice
from msklabel.predict.interpolate import fill, read_drawn

SYSTEM = load_catalogue(names=("hip_tissue_ct",))["hip_tissue_ct"]


def cone() -> np.ndarray:
    """Two legs that widen from slice 0 to 20, a bone in each from slice 8 on; shape (60, 40, 21)."""
    x, y, z = np.meshgrid(np.arange(60), np.arange(40), np.arange(21), indexing="ij")
    labels = np.zeros((60, 40, 21), np.uint8)
    for middle in (15, 45):
        off = np.hypot(x - middle - 0.2 * z, y - 20)
        labels[off < 6 + 0.3 * z] = 1
        labels[(off < 3) & (z >= 8)] = 2
    return labels


def kept(labels: np.ndarray, slices: list[int], axis: int) -> np.ndarray:
    sparse = np.zeros_like(labels)
    place = [slice(None)] * 3
    place[axis] = slices  # type: ignore[call-overload]
    sparse[tuple(place)] = labels[tuple(place)]
    return sparse


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_slice_in_five_gives_the_whole_whatever_the_axis(axis: int) -> None:
    labels = np.moveaxis(cone(), 2, axis)
    drawn = list(range(0, 21, 5))
    sparse = kept(labels, drawn, axis)
    found = drawn_slices(sparse)
    assert found == (axis, tuple(drawn))
    filled = fill_between(sparse, found[1], axis)
    np.testing.assert_array_equal(np.take(filled, drawn, axis), np.take(labels, drawn, axis))
    assert dice(filled, labels, 1) > 0.95
    assert dice(filled, labels, 2) > 0.85


def test_a_label_that_ends_is_held_up_to_the_middle_and_takes_no_others_place() -> None:
    labels = np.zeros((12, 12, 7), np.uint8)
    labels[2:10, 2:10, [0, 6]] = 1
    labels[4:6, 4:6, 0] = 2
    labels[0, 0, 6] = 3
    filled = fill_between(labels, (0, 6), 2)
    # 2 lies within what 1 interpolates to: only 1's hole in the first slice is free for it
    assert [int(filled[0, 0, z] == 3) for z in range(7)] == [0, 0, 0, 0, 1, 1, 1]
    assert (filled[2:4, 2:10, 1:6] == 1).all()
    assert not np.isin(filled[..., 4:6], 2).any()


def test_a_class_may_be_absent_on_a_drawn_slice_between_two_that_have_it() -> None:
    labels = np.zeros((10, 10, 9), np.uint8)
    labels[2:8, 2:8, [0, 4, 8]] = 1
    labels[3:5, 3:5, [0, 8]] = 2
    filled = fill_between(labels, (0, 4, 8), 2)
    np.testing.assert_array_equal(filled[..., [0, 4, 8]], labels[..., [0, 4, 8]])
    assert not (filled[..., 3:6] == 2).any()


def test_slices_that_were_looked_at_count_though_they_are_empty() -> None:
    labels = np.zeros((8, 8, 9), np.uint8)
    labels[2:6, 2:6, 0] = 1
    filled = fill_between(labels, (0, 8), 2)
    assert [int(filled[3, 3, z]) for z in range(9)] == [1, 1, 1, 1, 0, 0, 0, 0, 0]


def test_labels_beyond_the_outermost_drawn_slices_stay() -> None:
    labels = cone()
    filled = fill_between(labels, (5, 15), 2)
    np.testing.assert_array_equal(filled[..., :6], labels[..., :6])
    np.testing.assert_array_equal(filled[..., 15:], labels[..., 15:])


def test_only_the_classes_that_were_looked_for_are_interpolated() -> None:
    labels = kept(cone(), [10, 15, 20], 2)
    filled = fill_between(labels, (10, 15, 20), 2, values=[1])
    np.testing.assert_array_equal(np.unique(filled[..., 11:15]), [0, 1])


def full_legs() -> np.ndarray:
    return cone()


def single() -> np.ndarray:
    return kept(cone(), [7], 2)


def empty() -> np.ndarray:
    return np.zeros((5, 5, 5), np.uint8)


@pytest.mark.parametrize(
    ("labels", "says"),
    [(full_legs, "no gaps between the labelled slices"), (single, "no gaps"), (empty, "no voxel is labelled")],
)
def test_nothing_to_interpolate_is_said(labels, says: str) -> None:
    with pytest.raises(UserError, match=says):
        drawn_slices(labels())


@pytest.mark.parametrize(
    ("slices", "says"),
    [((3, 4, 5), "no gap between drawn slices"), ((3, 99), "from 0 to 20, got"), ((0, 1), "there is no gap")],
)
def test_drawn_slices_must_be_slices_with_a_gap(slices: tuple[int, ...], says: str) -> None:
    with pytest.raises(UserError, match=says):
        fill_between(cone(), slices, 2)


def save(folder: Path, labels: np.ndarray) -> Path:
    file = folder / "label.nii.gz"
    nib.save(nib.Nifti1Image(labels, np.diag([2.0, 2, 5, 1])), file)
    return file


def test_what_is_known_of_the_label_decides(tmp_path: Path) -> None:
    file = save(tmp_path, kept(cone(), [5, 10, 15, 20], 2))
    known = Annotated(classes=("cortical_bone",), slices=(10, 20), slice_axis=2)
    filled, facts = fill(read_drawn(file, {SYSTEM.name: SYSTEM}, SYSTEM.name, annotated=known))
    assert facts == {"axis": 2, "drawn_slices": [10, 20], "filled_slices": 9}
    assert SYSTEM.label_indices["cortical_bone"] == 1
    np.testing.assert_array_equal(np.unique(filled.array[..., 11:20]), [0, 1])
    _, facts = fill(read_drawn(file, {}, request={"axis": "2", "slices": [5, 15]}, annotated=known))
    assert facts["drawn_slices"] == [5, 15]


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"slices": [1, 9]}, "axis: needed"),
        ({"axis": "z"}, "axis: expected"),
        ({"slices": "all"}, "slices: expected a list"),
    ],
)
def test_a_request_that_cannot_be_meant_is_refused(tmp_path: Path, request_: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        fill(read_drawn(save(tmp_path, cone()), {}, request=request_))


def test_values_of_no_system_are_refused_where_the_system_is_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\[20, 40\] are no labels of hip_tissue_ct"):
        read_drawn(save(tmp_path, cone() * 20), {SYSTEM.name: SYSTEM}, SYSTEM.name)


def interpolate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "msklabel", "interpolate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"})


def test_the_command_writes_a_filled_label_and_ends_well(tmp_path: Path) -> None:
    labels = cone()
    file = save(tmp_path, kept(labels, [0, 5, 10, 15, 20], 2))
    done = interpolate(str(file), "-o", str(tmp_path / "filled.nii.gz"))
    assert done.returncode == 0, done.stderr
    assert "16 slices filled between 5 drawn ones along axis 2" in done.stdout
    filled = nib.load(tmp_path / "filled.nii.gz")
    np.testing.assert_array_equal(filled.affine, np.diag([2.0, 2, 5, 1]))
    assert dice(np.asarray(filled.dataobj), labels, 1) > 0.95
    refused = interpolate(str(tmp_path / "filled.nii.gz"), "-o", str(tmp_path / "again.nii.gz"))
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "nothing to interpolate" in refused.stderr
    assert not (tmp_path / "again.nii.gz").exists()


@pytest.mark.real
def test_every_fifth_slice_of_a_real_thigh_is_nearly_enough() -> None:
    file = Path(os.environ.get("MSKLABEL_REAL_DATA", "../shared/data")) / "mr_thigh" / "labels.nii.gz"
    if not file.is_file():
        pytest.skip("needs mr_thigh of MSKLABEL_REAL_DATA")
    labels = np.asarray(nib.load(file).dataobj).astype(np.uint8)
    drawn = tuple(range(0, labels.shape[2], 5))
    filled = fill_between(kept(labels, list(drawn), 2), drawn, 2)
    np.testing.assert_array_equal(filled[..., drawn], labels[..., drawn])
    values = np.unique(labels[labels > 0])
    overlaps = [dice(filled, labels, int(value)) for value in values]
    nearest = labels[..., [min(drawn, key=lambda k, z=z: abs(k - z)) for z in range(labels.shape[2])]]
    by_nearest = np.mean([dice(nearest, labels, int(value)) for value in values])
    print(f"mean Dice of {len(values)} labels: {np.mean(overlaps):.3f} interpolated, {by_nearest:.3f} nearest slice")
    assert np.mean(overlaps) > 0.86
    assert np.mean(overlaps) > by_nearest
