"""Choosing on a real store: leases, labels, modality, patients, scores that come and go stale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from store_samples import store, write
from test_preprocess import body_in_air, make_system

from msklabel.choose.rescore import Rescore
from msklabel.choose.strategies import STRATEGIES
from msklabel.choose.summary import IMAGE_ONLY
from msklabel.choose.task import Choosers, SummaryScoring, strategies
from msklabel.errors import NotFound, UserError
from msklabel.imaging.read import read_labels
from msklabel.learn.versions import Versions
from msklabel.networks import build_network, weights_of
from msklabel.store.datastore import MskDatastore
from msklabel.store.leases import in_turn
from msklabel.system import System

TOY = make_system(spacing_mm=[None] * 3, patch_voxels=[8, 8, 1], choose={"flip_axes": [0]})
OTHER = make_system(name="other", modality=["MR"])


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    folder = tmp_path / "studies"
    for number in range(6):
        hu, _ = body_in_air((14, 12, 6))
        noise = np.random.default_rng(number).normal(0, 10 + 5 * number, hu.shape)
        write(folder / f"s{number}.nii", (hu + noise).astype(np.int16))
    return folder


def label(data: MskDatastore, image: str, client: str = "ann", shape: tuple[int, int, int] = (14, 12, 6)) -> None:
    file = write(data.store.state / "label.nii", np.ones(shape, np.uint8))
    data.submit(image, file, "final", {"client_id": client, "model": "toy"})


def publish(state: Path, system: System = TOY, broken: bool = False) -> Versions:
    versions = Versions(state / "models")
    torch.manual_seed(0)
    weights = weights_of(build_network(system))
    if broken:
        weights = {
            name: tensor * float("nan") if tensor.is_floating_point() else tensor for name, tensor in weights.items()
        }
    versions.publish(system.name, versions.add(system, [weights], {"fingerprint": system.fingerprint}).name)
    return versions


@pytest.mark.parametrize("name", ["auto", "batch"])
def test_nobody_gets_a_scan_twice_and_all_are_served(studies: Path, name: str) -> None:
    data, choose = store(studies, TOY), strategies()[name]
    given = []
    for number in range(6):
        found = choose({"client_id": f"a{number % 2}"}, data)
        assert found and found["reason"]
        given.append(found["id"])
        label(data, found["id"], f"a{number % 2}")
    assert sorted(given) == [f"s{n}" for n in range(6)]
    assert choose({"client_id": "a0"}, data) is None


@pytest.mark.parametrize("name", ["auto", "random"])
def test_with_all_scans_given_out_there_is_none_but_ones_own(studies: Path, name: str) -> None:
    data, choose = store(studies, TOY), strategies()[name]
    held = {}
    for client in "abcdef":
        held[client] = choose({"client_id": client}, data)["id"]
    assert len(set(held.values())) == 6
    assert choose({"client_id": "g"}, data) is None
    assert choose({"client_id": "c"}, data)["id"] == held["c"]


@pytest.mark.parametrize("name", ["auto", "diverse"])
def test_a_skipped_scan_comes_last(studies: Path, name: str) -> None:
    data, choose = store(studies, TOY), strategies()[name]
    skipped = choose({"client_id": "a"}, data)["id"]
    data.store.leases.skip(skipped, "a")
    assert choose({"client_id": "a"}, data)["id"] != skipped


def test_an_empty_folder_gives_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    data = store(tmp_path / "empty", TOY)
    assert [choose({"client_id": "a"}, data) for choose in strategies().values()] == [None] * len(STRATEGIES)


def test_a_scan_of_another_kind_is_not_served(studies: Path) -> None:
    data = store(studies, TOY, OTHER)
    for number in range(5):
        data.store.images.merge_info(f"s{number}", {"modality": "CT"})
    data.store.images.merge_info("s5", {"modality": "MR"})
    choose = strategies()["auto"]
    assert choose({"client_id": "a", "systems": "other"}, data)["id"] == "s5"
    assert choose({"client_id": "b", "systems": "other"}, data) is None
    assert choose({"client_id": "b", "systems": "toy"}, data)["id"] != "s5"


def test_a_scan_labelled_for_one_system_is_open_for_another(studies: Path) -> None:
    data = store(studies, TOY, make_system(name="other"))
    for number in range(6):
        label(data, f"s{number}")
    assert strategies()["auto"]({"client_id": "a"}, data) is None
    assert strategies()["auto"]({"client_id": "a", "systems": "toy"}, data) is None
    assert strategies()["auto"]({"client_id": "a", "systems": "other"}, data)
    assert strategies()["auto"]({"client_id": "b", "systems": "other,toy"}, data) is None


def test_scans_of_one_patient_are_not_two_independent_ones(studies: Path) -> None:
    data = store(studies, TOY)
    for number in range(6):
        data.store.images.merge_info(f"s{number}", {"patient": "p0" if number < 4 else f"p{number}"})
    first = [strategies()["first"]({"client_id": client}, data)["id"] for client in "abc"]
    assert first == ["s0", "s4", "s5"]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"seed": "x"}, "seed"),
        ({"slices": -1}, "slices"),
        ({"labels": "dense"}, "labels"),
        ({"systems": "nope"}, "no system"),
        ({"slices": 1001}, "slices: expected a whole number from 0 to 1000"),
    ],
)
def test_a_wrong_option_is_told(studies: Path, options: dict[str, object], what: str) -> None:
    data = store(studies, TOY)
    with pytest.raises(UserError, match=what):
        strategies()["auto"]({"client_id": "a", **options}, data)
    assert not data.store.leases.held(), "nobody is given a scan"


def test_scans_are_scored_and_scores_go_stale(studies: Path) -> None:
    data = store(studies, TOY)
    versions = publish(data.store.state)
    choosers = Choosers(versions)
    chooser = choosers(data.store)
    scoring = SummaryScoring(choosers, versions)
    nothing = {"version": "1", "fresh": 0, "stale": 0, "unscored": 6, "broken": 0, "undescribed": 6}
    said = chooser.progress()["toy"]
    assert {**said, "version": "1"} == nothing
    report = scoring({"limit": 4}, data)["toy"]
    assert (report["scored"], report["failed"], report["left"]) == (4, 0, 2)
    assert scoring({"limit": 0}, data)["toy"]["scored"] == 2
    assert chooser.progress()["toy"]["fresh"] == 6
    assert scoring({}, data)["toy"]["scored"] == 0
    row = data.store.scores.newest("toy")["s0"]
    assert len(row.summary) < 64 * 1024
    assert {"uncertain", "predicted_dice", "finite"} <= row.values.keys()
    publish(data.store.state)
    said = chooser.progress()["toy"]
    assert (said["fresh"], said["stale"]) == (0, 6)
    due = Rescore(chooser, versions).due("toy", versions.serving("toy"))
    entropies = {image: chooser.summary(image, "toy").values["uncertain"] for image in due}
    assert due == sorted(due, key=lambda image: -round(entropies[image], 6))
    best = strategies(choosers)["uncertain"]({"client_id": "a"}, data)["id"]
    assert best == due[0]


def test_no_numbers_are_flagged_and_served_last(studies: Path) -> None:
    data = store(studies, TOY)
    versions = publish(data.store.state, broken=True)
    choosers = Choosers(versions)
    SummaryScoring(choosers, versions)({"limit": 3}, data)
    said = choosers(data.store).progress()["toy"]
    assert (said["broken"], said["unscored"]) == (3, 3)
    broken = set(data.store.scores.newest("toy"))
    choose = strategies(choosers)["uncertain"]
    given = [choose({"client_id": str(client)}, data)["id"] for client in range(6)]
    assert set(given[3:]) == broken


def test_an_unreadable_scan_is_not_scored_again_and_again(studies: Path) -> None:
    (studies / "bad.nii").write_bytes(b"no image")
    data = store(studies, TOY)
    versions = publish(data.store.state)
    choosers = Choosers(versions)
    scoring = SummaryScoring(choosers, versions)
    assert scoring({}, data)["toy"]["failed"] == 1
    assert scoring({}, data)["toy"] == {"version": versions.serving("toy"), "scored": 0, "failed": 0, "left": 0}


def test_without_a_model_scans_are_described_for_a_cold_start(studies: Path) -> None:
    data = store(studies, TOY)
    versions = Versions(data.store.state / "models")
    choosers = Choosers(versions)
    assert SummaryScoring(choosers, versions)({}, data)["toy"]["scored"] == 6
    assert set(data.store.scores.of("toy", IMAGE_ONLY)) == {f"s{n}" for n in range(6)}
    said = choosers(data.store).explain("s2", "cold_start", {})
    assert said["score"] is not None
    assert len(said["systems"]["toy"]["unlabelled_like_it"]) == 5
    assert not said["systems"]["toy"]["scored"]
    assert choosers(data.store).progress()["toy"]["undescribed"] == 0
    assert all(image.shape for image in data.store.all_images()), "who is given one need not wait until it was read"


def test_it_says_why(studies: Path) -> None:
    data = store(studies, TOY)
    versions = publish(data.store.state)
    choosers = Choosers(versions)
    SummaryScoring(choosers, versions)({}, data)
    chooser = choosers(data.store)
    label(data, "s3")
    best = strategies(choosers)["uncertain"]({"client_id": "a"}, data)
    said = chooser.explain(best["id"], "uncertain", {"client_id": "a"})
    assert (said["rank"], said["of"], said["open"]) == (1, 5, True)
    assert said["reason"] == best["reason"]
    assert "s3" not in said["systems"]["toy"]["unlabelled_like_it"]
    assert set(said["systems"]["toy"]["labels"]) == {"dense", "soft"}
    other = chooser.explain("s3", "uncertain", {})
    assert (other["rank"], other["open"]) == (None, False)
    assert other["patient_has_labels"] and not said["patient_has_labels"], "that it is with somebody is no label"
    with pytest.raises(NotFound, match="strategies: auto"):
        chooser.explain("s1", "nope", {})
    with pytest.raises(NotFound, match="no image"):
        chooser.explain("nope", "auto", {})


def test_what_is_read_once_only_is_not_used_up_before_it_is_given() -> None:
    assert list(in_turn(iter("abcd"), set(), {"b"})) == ["a", "c", "d", "b"]
    assert list(in_turn(iter("abcd"), {"c"}, {"b"})) == ["c", "a", "d", "b"]


def test_slices_are_strided_until_a_model_has_judged_the_scan(studies: Path) -> None:
    data = store(studies, TOY)
    versions = publish(data.store.state)
    choosers = Choosers(versions)
    chooser = choosers(data.store)
    plan = chooser.slices("s1", 2)
    assert (plan.axis, plan.indices, plan.reason) == (2, (1, 4), "strided")
    SummaryScoring(choosers, versions)({}, data)
    plan = chooser.slices("s1", 3)
    assert plan.reason == "uncertain and spread"
    assert len(plan.indices) == 3
    answer = strategies(choosers)["auto"]({"client_id": "a", "slices": 2}, data)
    assert len(answer["slices"]["indices"]) == 2
    with pytest.raises(UserError, match="k: expected"):
        chooser.slices("s1", 0)


def test_slices_are_those_of_the_label_in_turn(studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = store(studies, TOY)
    versions = publish(data.store.state)
    choosers = Choosers(versions)
    SummaryScoring(choosers, versions)({}, data)
    chooser = choosers(data.store)
    plan_of, asked = chooser.slices, []
    monkeypatch.setattr(chooser, "slices", lambda *said: asked.append(said) or plan_of(*said))
    answer = strategies(choosers)["auto"]({"client_id": "a", "slices": 2}, data)
    [(image, count, system, label)] = asked
    assert (image, count, system) == (answer["id"], 2, "toy")
    assert label in TOY.labels, "the first turn is that of a label"
    assert f"doubt about {label}" in answer["reason"]
    plan = plan_of(answer["id"], 2, "toy", label)
    assert answer["slices"] == {"axis": plan.axis, "indices": list(plan.indices), "reason": plan.reason}
    with pytest.raises(NotFound, match="no label 'liver' of toy"):
        chooser.slices("s1", 2, "toy", "liver")


def test_slices_that_are_drawn_are_left_out(studies: Path) -> None:
    data = store(studies, TOY)
    first = Choosers()(data.store).slices("s1", 2, "toy")
    voxels = np.zeros((14, 12, 6), np.uint8)
    voxels[..., list(first.indices)] = 1
    file = write(data.store.state / "label.nii", voxels)
    annotated = {"slices": list(first.indices), "axis": first.axis}
    data.submit("s1", file, "final", {"model": "toy", "annotated": annotated})
    second = Choosers()(data.store).slices("s1", 3, "toy")
    assert len(second.indices) == 3
    assert not set(first.indices) & set(second.indices)


def test_another_process_finds_the_scores(studies: Path) -> None:
    """What one process scored is known to the next that asks, without a word between them."""
    data = store(studies, TOY)
    versions = publish(data.store.state)
    serving = Choosers(versions)(data.store)
    assert serving.progress()["toy"]["fresh"] == 0
    again = store(studies, TOY)
    SummaryScoring(Choosers(versions), versions)({}, again)
    assert serving.progress()["toy"]["fresh"] == 6


def test_it_works_on_each_database(studies: Path, any_database: str | None) -> None:
    data = store(studies, TOY)
    versions = publish(data.store.state)
    choosers = Choosers(versions)
    assert SummaryScoring(choosers, versions)({"limit": 2}, data)["toy"]["left"] == 4
    given = {choose({"client_id": name}, data)["id"] for name, choose in list(strategies(choosers).items())[:6]}
    assert len(given) == 6
    assert choosers(data.store).progress()["toy"]["fresh"] == 2


def draw(data: MskDatastore, answer: dict[str, Any], client: str) -> tuple[int, ...]:
    """Submit the slices that an answer names, and nothing else."""
    slices = answer["slices"]["indices"]
    voxels = np.zeros((14, 12, 6), np.uint8)
    voxels[..., slices] = 1
    file = write(data.store.state / "some.nii", voxels)
    notes = {"client_id": client, "model": "toy", "annotated": {"slices": slices, "axis": answer["slices"]["axis"]}}
    data.submit(answer["id"], file, "final", notes)
    return tuple(slices)


@pytest.mark.parametrize("name", ["auto", "first", "diverse"])
def test_scans_come_again_until_all_their_slices_are_drawn(studies: Path, name: str) -> None:
    data, choose = store(studies, TOY), strategies()[name]
    drawn: dict[str, list[int]] = {f"s{n}": [] for n in range(6)}
    for turn in range(12):
        answer = choose({"client_id": "a", "slices": 3}, data)
        assert answer
        if turn < 6:
            assert not drawn[answer["id"]], "those of which nothing is drawn come first"
            other = choose({"client_id": "b"}, data)
            assert other is None or not drawn[other["id"]], "who draws whole scans gets none that is begun"
            if other:
                data.store.leases.release(other["id"], "b")
        drawn[answer["id"]] += draw(data, answer, "a")
    assert {image: sorted(slices) for image, slices in drawn.items()} == {image: list(range(6)) for image in drawn}
    assert choose({"client_id": "a", "slices": 3}, data) is None
    labels = data.store.labels
    versions = [labels.newest(image, "final", "toy") for image in drawn]
    assert all(np.all(read_labels(labels.file(version)).array == 1) for version in versions)
    assert all(version.annotated == {"axis": 2, "slices": list(range(6))} for version in versions)


def test_a_scan_competes_again_once_a_version_has_learned_from_its_slices(studies: Path) -> None:
    data = store(studies, TOY)
    versions = publish(data.store.state)
    choosers = Choosers(versions)
    SummaryScoring(choosers, versions)({}, data)
    chooser = choosers(data.store)
    request = {"client_id": "a", "slices": 2, "systems": "toy"}
    image = strategies(choosers)["auto"](request, data)
    draw(data, image, "a")
    (pair,) = data.store.training_pairs("toy")

    def left() -> np.ndarray:
        pool = chooser.pool(chooser.wanted(request))
        assert pool.having["toy"].any(axis=1).tolist() == [one == image["id"] for one in pool.ids]
        assert pool.choices == 1
        return pool.left["toy"]()[pool.ids.index(image["id"])]

    assert (left() == 0).all()
    learned = {"fingerprint": TOY.fingerprint, "considered": [pair.annotated.key(pair.sha256)]}
    better = versions.add(TOY, versions.weights(TOY, "0001"), learned).name
    assert (left() == 0).all(), "it is not in service"
    versions.publish("toy", better)
    assert ((left() > 0) & (left() < 1)).all()
    assert chooser.slices(image["id"], 6, "toy").indices == tuple(
        index for index in range(6) if index not in image["slices"]["indices"]
    )


@pytest.mark.parametrize("name", ["first", "uncertain", "auto"])
def test_scans_of_one_patient_that_nobody_has_begun_come_first(studies: Path, name: str) -> None:
    data, choose = store(studies, TOY), strategies()[name]
    for number in range(6):
        data.store.images.merge_info(f"s{number}", {"patient": "P"})
    given = []
    for _ in range(6):
        answer = choose({"client_id": "a", "slices": 2}, data)
        given.append(answer["id"])
        draw(data, answer, "a")
    assert len(set(given)) == 6


def test_rejected_slices_are_to_be_drawn_again(studies: Path) -> None:
    data = store(studies, TOY)
    chooser = Choosers()(data.store)
    plan = chooser.slices("s1", 2, "toy")
    draw(data, {"id": "s1", "slices": {"indices": list(plan.indices), "axis": plan.axis}}, "a")
    assert not set(chooser.slices("s1", 2, "toy").indices) & set(plan.indices)
    data.store.reviews.add(data.store.labels.newest("s1", "final").id, "rejected", "too thin")
    assert chooser.slices("s1", 2, "toy") == plan
