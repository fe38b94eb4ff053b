"""What the voxel values of a submission mean: by hand, case by case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from store_samples import ABDUCTORS, DIXON, TISSUES, blocks, listed, read, scan, store, write

from msklabel.errors import UserError
from msklabel.store.values import Hints, Stated, indices_in, stated, system_of, value_names

MEDIUS, MINIMUS, TENSOR = ABDUCTORS.labels
MAPPED: dict[str, tuple[list[int], Any, dict[int, int]]] = {
    "nothing said": ([1, 3], None, {1: 1, 3: 3}),
    "the scheme itself": ([1, 2, 3], listed(MEDIUS, MINIMUS, TENSOR), {1: 1, 2: 2, 3: 3}),
    "segments in another order": ([1, 2, 3], listed(TENSOR, MEDIUS, MINIMUS), {1: 3, 2: 1, 3: 2}),
    "Slicer: first segment deleted": ([1, 2], listed(MINIMUS, TENSOR), {1: 2, 2: 3}),
    "Slicer: background is segment 1": ([1, 2, 3], listed(MEDIUS, MINIMUS, TENSOR, first=2), {1: 1, 2: 2, 3: 3}),
    "idx is the value": ([3], [{"name": MINIMUS, "idx": 3}], {3: 2}),
    "idx is the value, any order": (
        [2, 3],
        [{"name": TENSOR, "idx": 3}, {"name": MEDIUS, "idx": 2}],
        {2: 1, 3: 3},
    ),
    "names alone": ([1, 2], [{"name": TENSOR}, {"name": MEDIUS}], {1: 3, 2: 1}),
    "background listed with 0": ([1, 2], [{"name": "background", "idx": 0}, *listed(TENSOR, MEDIUS)], {1: 3, 2: 1}),
    "two segments of one name": ([1, 2], listed(MEDIUS, MEDIUS), {1: 1, 2: 1}),
    "an empty segment of another name": ([2], listed("Segment_1", MINIMUS), {2: 2}),
    "scheme values, a name missing": ([1, 2, 3], listed(MEDIUS, MINIMUS), {1: 1, 2: 2, 3: 3}),
}
REFUSED: dict[str, tuple[list[int], Any, str]] = {
    "two readings": (
        [2, 3],
        listed(MEDIUS, MINIMUS, TENSOR, first=2),
        r"2 is 'gluteus_medius' by idx but 'gluteus_m",
    ),
    "unknown name with voxels": ([1], listed("Segment_1", MINIMUS), r"1 \('Segment_1'\) are no labels of hip_abductor"),
    "a value beyond the list": ([1, 2, 3], listed(TENSOR, MEDIUS), r"does not say what the voxel values \[1, 2, 3\]"),
    "a value that the idx exclude": (
        [1],
        listed(MINIMUS, TENSOR, first=2),
        r"none for the voxel values \[1\]",
    ),
    "a value outside the scheme": ([1, 7], None, r"\[7\] are no labels of hip_abductor_mr"),
    "no list": ([1], {"name": MEDIUS}, "expected a list"),
    "no name": ([1], [{"idx": 1}], "expected a list"),
}


@pytest.mark.parametrize("case", MAPPED)
def test_value_is_mapped_by_name(case: str) -> None:
    present, label_info, expected = MAPPED[case]
    assert indices_in(ABDUCTORS, present, stated(label_info), None) == expected


@pytest.mark.parametrize("case", REFUSED)
def test_value_in_doubt_is_refused(case: str) -> None:
    present, label_info, message = REFUSED[case]
    with pytest.raises(UserError, match=message):
        indices_in(ABDUCTORS, present, stated(label_info), None)


def test_the_file_itself_says_more_than_the_request() -> None:
    said = stated(listed(MEDIUS, MINIMUS))
    assert indices_in(ABDUCTORS, [1, 2, 9], said, {1: TENSOR, 2: MEDIUS, 9: "background"}) == {1: 3, 2: 1, 9: 0}
    with pytest.raises(UserError, match=r"none for the voxel values \[3\]"):
        value_names([3], said, {1: TENSOR})


SYSTEMS = {system.name: system for system in (TISSUES, ABDUCTORS, DIXON)}
NAMES = {name: name for name in SYSTEMS}
CHOSEN: dict[str, tuple[dict[str, Any], list[str], Hints, str]] = {
    "model": ({"model": "thigh_dixon"}, [MEDIUS], Hints(), "thigh_dixon"),
    "system": ({"system": "thigh_dixon", "model": "hip_tissue_ct"}, [MEDIUS], Hints(), "thigh_dixon"),
    "only one has the names": ({}, ["muscle"], Hints(), "hip_tissue_ct"),
    "empty segments of all systems listed": (
        {"label_info": listed(*TISSUES.labels, *ABDUCTORS.labels, *DIXON.labels)},
        ["muscle"],
        Hints(),
        "hip_tissue_ct",
    ),
    "an empty segment decides": ({"label_info": listed(MEDIUS, "sartorius")}, [MEDIUS], Hints(), "thigh_dixon"),
    "the proposal decides": ({}, [MEDIUS], Hints("MR", "hip_abductor_mr"), "hip_abductor_mr"),
}


@pytest.mark.parametrize("case", CHOSEN)
def test_system_is_found(case: str) -> None:
    info, used, hints, expected = CHOSEN[case]
    assert system_of(info, dict(enumerate(used, 1)), SYSTEMS, NAMES, hints).name == expected


@pytest.mark.parametrize(
    ("info", "used", "message"),
    [
        ({"model": "unet"}, [MEDIUS], "'unet' is not served here"),
        ({"model": ["x"]}, [MEDIUS], "is not served here"),
        ({}, [MEDIUS, MINIMUS, TENSOR], "fit hip_abductor_mr, thigh_dixon; send model"),
        ({}, ["spleen"], "no system has all of the labels spleen"),
        ({}, None, "which system"),
    ],
)
def test_system_in_doubt_is_refused(info: dict[str, Any], used: list[str] | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        system_of(info, used and dict(enumerate(used, 1)), SYSTEMS, NAMES, Hints())


def test_duplicate_idx_is_no_reading() -> None:
    assert Stated((MEDIUS, MINIMUS), (1, 1)).by_idx() == {}


def test_slicer_submission_to_a_server_of_many_systems(tmp_path: Path) -> None:
    """3D Slicer makes an empty segment for every label of every system, and numbers those that it exports."""
    scan(tmp_path / "s" / "a.nii.gz")
    data = store(tmp_path / "s", TISSUES, ABDUCTORS)
    segments = [*TISSUES.labels, *ABDUCTORS.labels]
    file = write(tmp_path / "label.nii.gz", blocks(8, 10))
    data.save_label("a", str(file), "final", {"label_info": listed(*segments), "client_id": "user-xyz"})
    np.testing.assert_array_equal(read(data.get_label_uri("a", "final", "hip_abductor_mr")), blocks(1, 3))


def test_seg_nrrd_is_read_by_its_own_names(tmp_path: Path) -> None:
    scan(tmp_path / "s" / "a.nii.gz")
    data = store(tmp_path / "s", ABDUCTORS)
    image = sitk.ReadImage(str(write(tmp_path / "plain.nrrd", blocks(4, 9))))
    for number, (name, value) in enumerate([(TENSOR, 4), (MEDIUS, 9)]):
        image.SetMetaData(f"Segment{number}_Name", name)
        image.SetMetaData(f"Segment{number}_LabelValue", str(value))
        image.SetMetaData(f"Segment{number}_Layer", "0")
    file = tmp_path / "label.seg.nrrd"
    sitk.WriteImage(image, str(file), useCompression=True)
    data.save_label("a", str(file), "final", {"label_info": listed(MEDIUS, TENSOR)})
    np.testing.assert_array_equal(read(data.get_label_uri("a", "final")), blocks(3, 1))
