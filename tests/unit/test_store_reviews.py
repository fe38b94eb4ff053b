"""Labels are accepted, rejected, opened again and compared; nothing of it is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_samples import ABDUCTORS, SHAPE, TISSUES, blocks, scan, store, write

from msklabel.choose.task import strategies
from msklabel.errors import Conflict, NotFound, UserError
from msklabel.store.datastore import MskDatastore
from msklabel.store.history import changed_voxels, difference, history, to_review

FIRST = strategies()["first"]
pytestmark = pytest.mark.usefixtures("any_database")


@pytest.fixture
def data(tmp_path: Path) -> MskDatastore:
    scan(tmp_path / "studies" / "a.nii.gz")
    scan(tmp_path / "studies" / "b.nii.gz")
    return store(tmp_path / "studies", TISSUES, ABDUCTORS)


def submit(data: MskDatastore, array: np.ndarray, image: str = "b", who: str = "ann", system: str = "") -> int:
    file = write(data.store.studies.parent / "label.nii.gz", array)
    info = {"client_id": who, "system": system or TISSUES.name}
    return data.submit(image, file, "final", info).id


def given(data: MskDatastore, who: str) -> Any:
    chosen = FIRST({"client_id": who}, data)
    if chosen:
        data.store.leases.release(chosen["id"], who)
    return chosen and chosen["id"]


def test_reviews_are_a_history_and_the_newest_is_the_state(data: MskDatastore) -> None:
    version = submit(data, blocks(1))
    data.store.reviews.add(version, "accepted", None, "rita")
    data.store.reviews.add(version, "rejected", " the left side is missing ", "rudi")
    [told] = history(data.store.labels, data.store.reviews, "b")
    assert told["state"] == "rejected"
    assert [(event["state"], event["reason"], event["who"]) for event in told["reviews"]] == [
        ("accepted", None, "rita"),
        ("rejected", "the left side is missing", "rudi"),
    ]
    assert [line.who for line in data.store.audit("review")] == ["rita", "rudi"]


@pytest.mark.parametrize("whole", [False, True])
def test_one_image_is_finished_just_as_among_all(data: MskDatastore, whole: bool) -> None:
    labels, known = data.store.labels, (TISSUES.name, ABDUCTORS.name)
    submit(data, blocks(1), "a", "ben")
    data.store.reviews.add(submit(data, blocks(1), "b", "ann"), "rejected", "too thick")
    submit(data, blocks(1), "b", "ben", ABDUCTORS.name)
    for systems in (None, (), known[:1], known[1:], known, ("nope",)):
        for tag in ("final", "original"):
            done = labels.finished(tag, systems, whole)
            assert {image for image in ("a", "b") if labels.is_finished(image, tag, systems, whole)} == done
    assert labels.finished("final", known[1:]) == {"b"} and labels.finished("final") == {"a"}
    assert labels.to_mend("ann", "final") == {"b"}
    assert labels.to_mend("ben", "final") == labels.to_mend("Ann", "final") == labels.to_mend("ann", "x") == set()


def test_training_gets_no_rejected_label_but_the_one_before(data: MskDatastore) -> None:
    first, second = submit(data, blocks(1)), submit(data, blocks(2))
    data.store.reviews.add(first, "accepted")
    data.store.reviews.add(second, "rejected", "wrong scan")
    assert [(pair.version_id, pair.state) for pair in data.training_pairs(TISSUES.name)] == [(first, "accepted")]
    data.store.reviews.add(first, "rejected", "wrong, too")
    assert data.training_pairs(TISSUES.name) == []
    data.store.reviews.add(second, "submitted")
    assert [(pair.version_id, pair.state) for pair in data.training_pairs(TISSUES.name)] == [(second, "submitted")]


@pytest.mark.parametrize("state", ["rejected", "reopened"])
def test_a_label_to_be_made_again_is_offered_again_first_to_its_author(data: MskDatastore, state: str) -> None:
    version = submit(data, blocks(1))
    assert (given(data, "ann"), given(data, "ben")) == ("a", "a")
    data.store.reviews.add(version, state, "mend the edge")
    assert (given(data, "ann"), given(data, "ben")) == ("b", "a")
    assert data.get_unlabeled_images() == ["a", "b"]
    submit(data, blocks(1, 2))
    assert (given(data, "ann"), given(data, "ben")) == ("a", "a")
    assert data.get_labeled_images() == ["b"]


def test_another_systems_label_does_not_hide_one_that_was_opened_again(data: MskDatastore) -> None:
    version = submit(data, blocks(1))
    submit(data, blocks(1), system=ABDUCTORS.name)
    data.store.reviews.add(version, "reopened")
    assert data.get_unlabeled_images() == ["a", "b"]
    assert data.get_unlabeled_images(labels=list(ABDUCTORS.labels)) == ["a"]


@pytest.mark.parametrize(
    ("state", "reason", "kind", "sentence"),
    [
        ("rejected", " ", UserError, "needs a reason"),
        ("perfect", "", UserError, "expected one of submitted, accepted, rejected, reopened"),
    ],
)
def test_a_review_that_cannot_be(
    data: MskDatastore, state: str, reason: str, kind: type[Exception], sentence: str
) -> None:
    version = submit(data, blocks(1))
    with pytest.raises(kind, match=sentence):
        data.store.reviews.add(version, state, reason)
    assert data.store.labels.get(version).state == "submitted"


def test_only_what_is_there_can_be_reviewed(data: MskDatastore) -> None:
    with pytest.raises(NotFound, match="no label version 9"):
        data.store.reviews.add(9, "accepted")
    version = submit(data, blocks(1))
    data.remove_label("b", "final")
    with pytest.raises(Conflict, match="was removed"):
        data.store.reviews.add(version, "accepted")
    [told] = history(data.store.labels, data.store.reviews, "b")
    assert [event["state"] for event in told["reviews"]] == ["withdrawn"]


def meta(status: str, comment: str = "") -> dict[str, Any]:
    """What 3D Slicer's reviewer module sends."""
    said = {"status": status, "approvedBy": "rita", "level": "easy", "comment": comment, "editTime": 1}
    return {"segmentationMeta": said}


def test_the_reviewer_module_of_slicer_reviews(data: MskDatastore) -> None:
    version = submit(data, blocks(1))
    for status, comment in (("approved", ""), ("approved", "fine"), ("flagged", "too thick"), ("flagged", "")):
        data.update_label_info("b", "final", meta(status, comment))
    reviews = data.store.reviews.of([version])[version]
    assert [(review.state, review.reason, review.who) for review in reviews] == [
        ("accepted", None, "rita"),
        ("rejected", "too thick", "rita"),
    ]
    data.update_label_info("b", "final", meta("segmented"))
    assert data.store.labels.get(version).state == "submitted"
    data.update_label_info("b", "final", meta(""))
    assert len(data.store.reviews.of([version])[version]) == 3


def test_the_reviewer_module_sees_reviews_made_elsewhere(data: MskDatastore) -> None:
    version = submit(data, blocks(1))
    data.update_label_info("b", "final", {"segmentationMeta": {"level": "hard"}})
    data.store.reviews.add(version, "rejected", "too thick", "rudi")
    seen = data.json()["objects"]["b"]["labels"]["final"]["info"]["segmentationMeta"]
    assert seen.pop("editTime") > 1
    assert seen == {"status": "flagged", "level": "hard", "approvedBy": "rudi", "comment": "too thick"}


def waiting(data: MskDatastore, **options: Any) -> list[tuple[int, str | None]]:
    told = to_review(data.store.labels, data.store.reviews, **options)
    return [(version["version"], version["held"]) for version in told]


def test_what_a_training_holds_back_waits_for_a_reviewer_first_and_with_the_reason(data: MskDatastore) -> None:
    older, first, second = submit(data, blocks(2)), submit(data, blocks(1)), submit(data, blocks(1), image="a")
    other = submit(data, blocks(1), image="a", system=ABDUCTORS.name)
    assert waiting(data) == [(first, None), (second, None), (other, None)]
    data.store.reviews.hold({first: "", second: "with left and right exchanged it would be 0.95"})
    data.store.reviews.hold({first: "", second: "with left and right exchanged it would be 0.95"})
    held = (second, "with left and right exchanged it would be 0.95")
    assert waiting(data) == [held, (first, None), (other, None)]
    assert waiting(data, held=True) == waiting(data, most=1) == [held]
    assert waiting(data, system=ABDUCTORS.name) == [(other, None)]
    assert [line.facts["version"] for line in data.store.audit("review")] == [second]  # told once
    data.store.reviews.hold({second: ""})
    assert waiting(data) == [(first, None), (second, None), (other, None)]
    data.store.reviews.hold({second: "again"})
    data.store.reviews.add(second, "accepted", None, "rita")
    assert waiting(data) == [(first, None), (other, None)]
    states = [event.state for event in data.store.reviews.of([second])[second]]
    assert states == ["held", "released", "held", "accepted"]
    pairs = {pair.version_id: pair.state for pair in data.training_pairs(TISSUES.name)}
    assert pairs == {first: "submitted", second: "accepted"} and older not in pairs


def test_changed_voxels_of_each_class() -> None:
    before, after = np.array([1, 1, 2, 0, 0]), np.array([1, 2, 2, 2, 9])
    assert changed_voxels(before, after, {"bone": 1, "fat": 2}) == {
        "bone": {"before": 2, "after": 1, "added": 0, "removed": 1},
        "fat": {"before": 1, "after": 3, "added": 2, "removed": 0},
        "9": {"before": 0, "after": 1, "added": 1, "removed": 0},
    }


def test_two_versions_of_a_label_are_compared(data: MskDatastore) -> None:
    a, b = submit(data, blocks(1)), submit(data, blocks(1, 5))
    bone, muscle = (list(TISSUES.labels)[index] for index in (0, 4))
    slab = int(blocks(1).astype(bool).sum())
    assert difference(data.store.labels, data.store.systems, a, b) == {
        "a": a,
        "b": b,
        "changed_voxels": slab,
        "classes": {
            bone: {"before": slab, "after": slab, "added": 0, "removed": 0},
            muscle: {"before": 0, "after": slab, "added": slab, "removed": 0},
        },
    }
    other = submit(data, np.ones(SHAPE, np.uint8), image="a")
    with pytest.raises(UserError, match="only labels of one scan and one system"):
        difference(data.store.labels, data.store.systems, a, other)
    with pytest.raises(NotFound):
        difference(data.store.labels, data.store.systems, a, 99)


def test_versions_of_two_sizes_are_not_compared(data: MskDatastore) -> None:
    a = submit(data, blocks(1))
    write(Path(data.get_image_uri("b")), np.zeros((4, 5, 6), np.int16))
    b = submit(data, np.ones((4, 5, 6), np.uint8))
    with pytest.raises(UserError, match=f"version {a} has 8 x 7 x 5 voxels, version {b} 4 x 5 x 6"):
        difference(data.store.labels, data.store.systems, a, b)
