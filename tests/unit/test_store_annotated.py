"""A label says which classes and slices it speaks of, and is held to it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_samples import ABDUCTORS, SHAPE, TISSUES, blocks, scan, store, write

from msklabel.errors import UserError
from msklabel.imaging.annotated import Annotated
from msklabel.imaging.read import read_labels
from msklabel.store.datastore import MskDatastore
from msklabel.store.schema import LabelVersion

BONE, MUSCLE = (list(TISSUES.labels)[index] for index in (0, 4))


@pytest.fixture
def data(tmp_path: Path) -> MskDatastore:
    scan(tmp_path / "studies" / "scan1.nii.gz")
    return store(tmp_path / "studies")


def submit(data: MskDatastore, array: np.ndarray, annotated: Any) -> None:
    file = write(data.store.studies.parent / "label.nii.gz", array)
    data.save_label("scan1", str(file), "final", {"annotated": annotated, "client_id": "ann"})


def drawn(axis: int, *slices: int) -> np.ndarray:
    """One class in some slices only."""
    array = np.zeros(SHAPE, np.uint8)
    for index in slices:
        np.moveaxis(array, axis, 0)[index] = 1
    return array


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (None, Annotated()),
        ({}, Annotated()),
        ({"classes": [MUSCLE, BONE]}, Annotated(classes=(BONE, MUSCLE))),
        ({"slices": [3, 1, 3]}, Annotated(slices=(1, 3))),
        ({"slices": [1, 3], "axis": 1, "classes": None}, Annotated(slices=(1, 3), slice_axis=1)),
        ({"slices": [1, 3], "axis": 0, "classes": [BONE]}, Annotated((BONE,), (1, 3), 0)),
    ],
)
def test_training_is_told_what_a_label_speaks_of(data: MskDatastore, said: Any, kept: Annotated) -> None:
    submit(data, drawn(kept.slice_axis, 1, 3), said)
    [pair] = data.training_pairs("hip_tissue_ct")
    assert pair.annotated == kept
    assert (pair.state, pair.version_id) == ("submitted", data.store.labels.history("scan1")[0].id)
    assert "annotated" not in data.store.labels.history("scan1")[0].info


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("all", "expected an object"),
        ({"class": [BONE]}, "the key 'class'"),
        ({"classes": ["liver"]}, "'liver' is no label of hip_tissue_ct"),
        ({"classes": []}, "at least one"),
        ({"classes": BONE}, "expected a list"),
        ({"slices": [5]}, "5 is outside the scan, which has slices 0 to 4 along axis 2"),
        ({"slices": [-1]}, "-1 is outside the scan"),
        ({"slices": [1.5]}, "expected a list"),
        ({"slices": [True]}, "expected a list"),
        ({"slices": [1], "axis": 3}, "axis: expected 0 to 2, got 3"),
        ({"slices": [1], "axis": "z"}, "axis: expected 0 to 2, got 'z'"),
        ({"slices": [0, 1]}, "voxels in slice 3, which is not among"),
        ({"classes": [MUSCLE]}, f"voxels of '{BONE}', which is not among"),
    ],
)
def test_what_cannot_be_is_refused(data: MskDatastore, said: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        submit(data, drawn(2, 1, 3), said)
    assert data.store.labels.history("scan1") == []


def test_a_part_is_shown_with_the_label(data: MskDatastore) -> None:
    submit(data, blocks(1), {"classes": [BONE]})
    assert data.get_label_info("scan1", "final")["annotated"] == {"axis": 2, "classes": [BONE]}


def newest(data: MskDatastore) -> tuple[np.ndarray, LabelVersion]:
    version = data.store.labels.newest("scan1", "final")
    return read_labels(data.store.labels.file(version)).array, version


def test_slices_that_were_drawn_before_are_kept(data: MskDatastore) -> None:
    submit(data, drawn(2, 1, 3), {"slices": [1, 3]})
    submit(data, drawn(2, 0) * 5, {"slices": [0, 3]})
    voxels, version = newest(data)
    assert np.array_equal(voxels, drawn(2, 1) + 5 * drawn(2, 0)), "slice 3 was looked at again, and is empty now"
    assert version.annotated == {"axis": 2, "slices": [0, 1, 3]}
    assert version.classes == [BONE, MUSCLE]
    before = data.store.labels.history("scan1")[0]
    assert version.info["carried_over"] == {"version": before.id, "author": "ann", "slices": [1]}
    assert np.array_equal(read_labels(data.store.labels.file(before)).array, drawn(2, 1, 3))


@pytest.mark.parametrize(
    "annotated", [None, {"slices": [0], "axis": 1}, {"slices": [0], "classes": [BONE]}], ids=["all", "axis", "classes"]
)
def test_what_cannot_be_said_together_is_not_put_together(data: MskDatastore, annotated: Any) -> None:
    submit(data, drawn(2, 1, 3), {"slices": [1, 3]})
    array = drawn((annotated or {}).get("axis", 2), 0)
    submit(data, array, annotated)
    assert np.array_equal(newest(data)[0], array)
    assert "carried_over" not in newest(data)[1].info


@pytest.mark.parametrize("how", ["rejected", "withdrawn"])
def test_a_label_that_does_not_count_is_not_carried_over(data: MskDatastore, how: str) -> None:
    submit(data, drawn(2, 1), {"slices": [1]})
    submit(data, drawn(2, 2), {"slices": [2]})
    if how == "rejected":
        data.store.reviews.add(newest(data)[1].id, "rejected", "too thin")
        counts = [1, 3]
    else:
        data.store.withdraw("scan1", "final")
        counts = [3]
    submit(data, drawn(2, 3), {"slices": [3]})
    assert np.array_equal(newest(data)[0], drawn(2, *counts))
    assert newest(data)[1].annotated == {"axis": 2, "slices": counts}


def test_some_slices_of_a_whole_label_can_be_mended(tmp_path: Path) -> None:
    scan(tmp_path / "studies" / "scan1.nii.gz")
    data = store(tmp_path / "studies", ABDUCTORS)
    submit(data, drawn(2, 0, 1, 2, 3, 4), None)
    submit(data, drawn(2, 3) * 2, {"slices": [2, 3]})
    voxels, version = newest(data)
    assert np.array_equal(voxels, drawn(2, 0, 1, 4) + 2 * drawn(2, 3))
    assert version.annotated is None, "it speaks of the whole scan, as the one before"


def test_of_slices_that_come_at_once_none_is_lost(data: MskDatastore) -> None:
    def draw(index: int) -> None:
        file = write(data.store.studies.parent / f"{index}.nii.gz", drawn(2, index))
        data.save_label("scan1", str(file), "final", {"annotated": {"slices": [index]}, "client_id": f"ann{index}"})

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(draw, range(5)))
    assert np.array_equal(newest(data)[0], drawn(2, *range(5)))
    assert len(data.store.labels.history("scan1")) == 5


def test_a_scan_of_which_some_slices_are_drawn_can_be_given_again(data: MskDatastore) -> None:
    labels = data.store.labels
    submit(data, drawn(2, 0, 1), {"slices": [0, 1]})
    assert (labels.finished("final"), labels.finished("final", whole=True)) == ({"scan1"}, set())
    assert data.take_next(["scan1"], "bob") is None
    assert data.take_next(["scan1"], "bob", whole=True) == "scan1"
    submit(data, drawn(2, 2, 4), {"slices": [2, 3, 4]})
    assert labels.finished("final", whole=True) == {"scan1"}
    assert data.take_next(["scan1"], "bob", whole=True) is None


@pytest.mark.parametrize("shape", [(10, 9, 5), (8, 7, 9), (8, 7, 3)])
def test_slices_of_a_scan_that_was_replaced_are_not_carried_over(
    data: MskDatastore, shape: tuple[int, int, int]
) -> None:
    submit(data, drawn(2, 1, 3), {"slices": [1, 3]})
    write(data.store.studies / "scan1.nii.gz", np.zeros(shape, np.int16))
    array = np.zeros(shape, np.uint8)
    array[:, :, 2] = 1
    submit(data, array, {"slices": [2]})
    assert np.array_equal(newest(data)[0], array)
    assert newest(data)[1].annotated == {"axis": 2, "slices": [2]}


def test_an_earlier_label_that_cannot_be_read_does_not_stop_the_next(data: MskDatastore) -> None:
    submit(data, drawn(2, 1), {"slices": [1]})
    data.store.labels.file(newest(data)[1]).unlink()
    submit(data, drawn(2, 2), {"slices": [2]})
    voxels, version = newest(data)
    assert np.array_equal(voxels, drawn(2, 2))
    assert "cannot be read" in version.warnings[0]


def test_in_2d_slices_without_a_label_were_not_looked_at(data: MskDatastore) -> None:
    submit(data, drawn(2, 1, 3), None)
    submit(data, drawn(0, 2), {"slices": [2], "axis": 0})
    assert newest(data)[1].annotated == {"axis": 0, "slices": [2]}, "not all slices along that axis"
    submit(data, drawn(2, 1, 3), None)
    submit(data, drawn(2, 0), {"slices": [0]})
    assert np.array_equal(newest(data)[0], drawn(2, 0, 1, 3))
    assert newest(data)[1].annotated == {"axis": 2, "slices": [0, 1, 3]}


def test_all_classes_by_name_are_all_classes(data: MskDatastore) -> None:
    submit(data, drawn(2, 1), {"slices": [1], "classes": list(TISSUES.labels)})
    submit(data, drawn(2, 2), {"slices": [2]})
    assert newest(data)[1].annotated == {"axis": 2, "slices": [1, 2]}


def test_slices_in_which_there_is_nothing_may_follow_others(data: MskDatastore) -> None:
    nothing = np.zeros(SHAPE, np.uint8)
    for said in ({"slices": [2]}, {"classes": [BONE]}, None):
        with pytest.raises(UserError, match="the label is empty"):
            submit(data, nothing, said)
    submit(data, drawn(2, 1), {"slices": [1]})
    submit(data, nothing, {"slices": [2, 3]})
    voxels, version = newest(data)
    assert np.array_equal(voxels, drawn(2, 1))
    assert (version.annotated, version.classes) == ({"axis": 2, "slices": [1, 2, 3]}, [BONE])
    with pytest.raises(UserError, match="the label is empty"):
        submit(data, nothing, {"slices": [1, 2, 3]})
    assert len(data.store.labels.history("scan1")) == 2
