"""Choosing where things change meanwhile: a scan's file, who asks how often, what is asked for."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from store_samples import store, write
from test_choosing import TOY, publish
from test_preprocess import body_in_air

from msklabel.choose.task import Choosers, SummaryScoring, _turn_of, strategies
from msklabel.errors import NotFound, Unreachable
from msklabel.store.datastore import MskDatastore

ALL = (14, 12, 6)


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    folder = tmp_path / "studies"
    for number in range(5):
        replace(folder / f"s{number}.nii", ALL, number)
    return folder


def replace(file: Path, shape: tuple[int, int, int], seed: int = 9) -> None:
    hu, _ = body_in_air(shape)
    noise = np.random.default_rng(seed).normal(0, 30, shape)
    write(file, (hu + noise).astype(np.int16))


def judged(studies: Path) -> tuple[MskDatastore, Choosers, SummaryScoring]:
    """A store whose scans were all judged, and described without a model; and what judges them."""
    data = store(studies, TOY)
    versions = publish(data.store.state)
    choosers = Choosers(versions)
    scoring = SummaryScoring(choosers, versions)
    assert scoring({"images_only": True}, data)["toy"]["scored"] == scoring({}, data)["toy"]["scored"] == 5
    assert choosers(data.store).progress()["toy"]["fresh"] == 5
    return data, choosers, scoring


def test_what_was_said_of_a_scan_counts_no_more_when_its_file_is_another_one(studies: Path) -> None:
    data, choosers, scoring = judged(studies)
    chooser = choosers(data.store)
    assert max(chooser.slices("s1", 4).indices) > 2
    replace(studies / "s1.nii", (14, 12, 3))
    data.refresh()
    said = chooser.progress()["toy"]
    assert (said["fresh"], said["unscored"], said["undescribed"]) == (4, 1, 1)
    plan = chooser.slices("s1", 4)
    assert (plan.reason, plan.indices) == ("strided", (0, 1, 2))
    assert not chooser.explain("s1", "auto", {})["systems"]["toy"]["scored"]
    assert scoring({}, data)["toy"]["scored"] == 1
    assert max(chooser.slices("s1", 4).indices) == 2


def test_a_scan_that_is_read_before_its_folder_is_looked_at_is_judged_anew_too(studies: Path) -> None:
    data, choosers, _ = judged(studies)
    replace(studies / "s1.nii", (14, 12, 3))
    assert data.store.images.grid("s1").shape == (14, 12, 3)
    assert choosers(data.store).progress()["toy"]["fresh"] == 4


def test_slices_that_were_drawn_in_a_longer_scan_are_no_obstacle(studies: Path) -> None:
    data, choosers, scoring = judged(studies)
    label = write(studies.parent / "label.nii", np.ones(ALL, np.uint8) * np.isin(np.arange(6), [0, 5]).astype(np.uint8))
    some = {"axis": 2, "slices": [0, 5]}
    data.submit("s1", label, "final", {"client_id": "ann", "model": "toy", "annotated": some})
    chooser = choosers(data.store)
    assert not {0, 5} & set(chooser.slices("s1", 2).indices)
    replace(studies / "s1.nii", (14, 12, 3))
    data.refresh()
    assert chooser.slices("s1", 9, "toy").indices == (1, 2)
    scoring({}, data)
    assert chooser.slices("s1", 9, "toy").indices == (1, 2)


def test_slices_are_asked_for_the_system_whose_scan_it_is(studies: Path) -> None:
    data, choosers, _ = judged(studies)
    chooser = choosers(data.store)
    wanted = chooser.wanted({"systems": "toy"})
    pool = chooser.pool(wanted)
    ranking = chooser.rank("auto", pool, {"seed": 0})
    assert _turn_of("s0", pool, ranking, wanted) == ("toy", ranking.label)
    pool.fits["toy"][:] = False
    assert _turn_of("s0", pool, ranking, wanted) == (None, None)


def test_a_scan_that_was_deleted_a_moment_ago_is_not_given(studies: Path) -> None:
    data = store(studies, TOY)
    assert data.take_next(["s0"], "a") == "s0"
    data.store.leases.release("s0", "a")
    (studies / "s0.nii").unlink()
    assert data.take_next(["s0", "s1"], "a") == "s1"
    assert data.store.leases.held() == {"s1": "a"}


def test_scans_that_are_away_are_judged_when_they_are_there_again(
    studies: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, choosers, scoring = judged(studies)
    publish(data.store.state)
    path = data.store.images.path

    def away(image_id: str) -> Path:
        raise Unreachable("the PACS does not answer")

    monkeypatch.setattr(data.store.images, "path", away)
    with pytest.raises(Unreachable):
        scoring({}, data)
    assert choosers(data.store).progress()["toy"]["fresh"] == 0
    monkeypatch.setattr(data.store.images, "path", lambda name: away(name) if name == "s2" else path(name))
    assert {**scoring({}, data)["toy"], "version": ""} == {"version": "", "scored": 4, "failed": 0, "left": 1}
    monkeypatch.setattr(data.store.images, "path", path)
    assert {**scoring({}, data)["toy"], "version": ""} == {"version": "", "scored": 1, "failed": 0, "left": 0}


def test_who_asks_again_is_told_the_same(studies: Path) -> None:
    data, choosers, _ = judged(studies)
    choose = strategies(choosers)["auto"]
    choose({"client_id": "b"}, data)
    first = choose({"client_id": "a", "slices": 2}, data)  # in the last turn that is a label's
    assert "doubt about" in first["reason"]
    assert first == choose({"client_id": "a", "slices": 2}, data)


def test_a_file_that_was_only_touched_is_judged_anew_as_nobody_knows(studies: Path) -> None:
    data, choosers, _ = judged(studies)
    os.utime(studies / "s0.nii", ns=(1, 1))
    data.refresh()
    assert choosers(data.store).progress()["toy"]["fresh"] == 4


@pytest.mark.parametrize("labels", [["nope"], ["dense", "nope"], [1]])
def test_labels_that_no_system_has_are_refused(studies: Path, labels: list[object]) -> None:
    data = store(studies, TOY)
    with pytest.raises(NotFound, match="no system has all of the labels"):
        strategies()["auto"]({"client_id": "a", "labels": labels}, data)
    assert data.store.leases.held() == {}
    assert strategies()["auto"]({"client_id": "a", "labels": ["dense"]}, data)
