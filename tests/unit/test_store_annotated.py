"""A label says which classes and slices it speaks of, and is held to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_samples import SHAPE, TISSUES, blocks, scan, store, write

from msklabel.errors import UserError
from msklabel.imaging.annotated import Annotated
from msklabel.store.datastore import MskDatastore

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
