"""Slips of an annotator are told from failures of the model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_learn import make_case
from test_preprocess import make_system

from msklabel.errors import UserError
from msklabel.imaging import LabelMap, Scan
from msklabel.imaging.annotated import Annotated
from msklabel.learn.cases import Case, Unusable
from msklabel.learn.doubts import Doubts, Reference, best_reference
from msklabel.learn.record import read_json, to_json
from msklabel.learn.scores import KeptScores
from msklabel.learn.screening import Usual, assess, usual_agreement
from msklabel.predict.engine import Segmentation

USUAL = Usual(0.9, 0.02)
ALL = Annotated()


def anatomy() -> np.ndarray:
    """Two structures on two sides that do not mirror each other."""
    labels = np.zeros((40, 30, 4), np.uint8)
    labels[4:16, 4:24] = 2
    labels[6:12, 8:14] = 1
    labels[24:36, 10:26] = 2
    labels[26:30, 12:18] = 1
    return labels


def judged(labels: np.ndarray, predicted: np.ndarray | None = None) -> tuple[bool, str]:
    truth = anatomy()
    finding = assess(make_system(), labels, truth if predicted is None else predicted, ALL, USUAL)
    return finding.held, finding.reason


def test_a_label_that_agrees_is_used() -> None:
    assert judged(anatomy()) == (False, "")


@pytest.mark.parametrize(
    ("slip", "said"),
    [
        (lambda a: a[::-1], "with left and right exchanged it would be 1.00"),
        (lambda a: a[:, ::-1], "with front and back exchanged it would be 1.00"),
        (lambda a: np.roll(a, 4, axis=0), "shifted onto the body it would be 1.00"),
        (lambda a: np.where(a > 0, 3 - a, 0).astype(np.uint8), "with labels exchanged it would be 1.00"),
    ],
)
def test_slips_are_held_back_and_named(slip: object, said: str) -> None:
    held, reason = judged(slip(anatomy()))  # type: ignore[operator]
    assert held and said in reason and "where 0.90 is usual" in reason


def test_a_half_that_was_not_drawn_is_held_back() -> None:
    labels = anatomy()
    labels[20:] = 0
    held, reason = judged(labels)
    assert held and "over the drawn half alone" in reason


def test_a_scan_on_which_the_model_fails_in_its_own_way_is_used() -> None:
    failed = anatomy()
    failed[8:10, 4:16], failed[26:31, 10:18], failed[6:7, 8:14] = 0, 0, 2  # patches missed here and there
    held, reason = judged(anatomy(), failed)
    assert not held and "the model may be wrong" in reason


def test_what_has_nothing_in_common_with_the_scan_is_held_back() -> None:
    noise = np.random.default_rng(0).integers(0, 3, (40, 30, 4)).astype(np.uint8)
    held, reason = judged(noise)
    assert held and "no simple slip" in reason


def test_the_usual_is_a_median_that_one_spoiled_case_does_not_move() -> None:
    usual = usual_agreement({"a": {"x": 0.9}, "b": {"x": 0.88}, "c": {"x": 0.1}, "d": {"x": 0.91}, "e": {"x": 0.9}})
    assert usual and usual.dice == 0.9 and usual.suspicious_below > 0.8
    assert usual_agreement({}) is None


class FixedSegmenter:
    """Says the same of every scan; counts how often it is asked."""

    def __init__(self, labels: np.ndarray) -> None:
        self.system = make_system()
        self.labels = labels
        self.asked = 0

    def __call__(self, scan: Scan) -> Segmentation:
        self.asked += 1
        return Segmentation(LabelMap(self.labels, scan.affine), {})


def labelled(name: str, mirrored: bool = False, accepted: bool = False) -> Case:
    scan = Scan(np.zeros((1, 40, 30, 4), np.float32), np.eye(4))
    labels = anatomy()[::-1] if mirrored else anatomy()
    return Case(name, name, lambda: (scan, np.ascontiguousarray(labels)), label=f"sha-{name}", accepted=accepted)


def test_doubts_are_kept_assessed_once_and_lifted_by_a_reviewer(tmp_path: Path) -> None:
    segmenter, doubts = FixedSegmenter(anatomy()), Doubts(tmp_path / "screening.json")
    reference = Reference("0001", segmenter, USUAL)
    cases = [labelled("a"), labelled("b", mirrored=True)]
    assert list(doubts.review(cases, reference)) == ["sha-b"]
    assert list(Doubts(tmp_path / "screening.json").review(cases, reference)) == ["sha-b"]
    assert segmenter.asked == 2
    assert doubts.review([labelled("b", mirrored=True, accepted=True)], reference) == {}
    assert list(doubts.review(cases, None)) == ["sha-b"]
    better = Reference("0002", FixedSegmenter(anatomy()[::-1].copy()), USUAL)
    assert doubts.review(cases, better) == {}  # another version sees it the annotator's way


def test_a_label_is_looked_at_anew_when_the_file_of_its_scan_changes(tmp_path: Path) -> None:
    segmenter, file = FixedSegmenter(anatomy()), tmp_path / "screening.json"
    reference, doubts = Reference("0001", segmenter, USUAL), Doubts(file)
    before = [replace(labelled("b", mirrored=True), image="one")]
    assert list(doubts.review(before, reference)) == ["sha-b"]
    after = [replace(labelled("b"), image="two")]  # the scan that the label was drawn on
    assert doubts.held(after) == {}
    assert doubts.review(after, reference) == {} and segmenter.asked == 2
    assert doubts.review(after, reference) == {} and segmenter.asked == 2
    assert list(read_json(file)) == [after[0].key]


def test_labels_of_one_checksum_on_two_scans_are_doubted_apart(tmp_path: Path) -> None:
    doubts, segmenter = Doubts(tmp_path / "screening.json"), FixedSegmenter(anatomy())
    cases = [replace(labelled(name, mirrored=name == "b"), label="sha") for name in "ab"]
    for _ in range(2):
        doubts.review(cases, Reference("0001", segmenter, USUAL))
    assert segmenter.asked == 2
    assert (doubts.held(cases[:1]), list(doubts.held(cases[1:]))) == ({}, ["sha"])


def test_what_was_found_by_an_earlier_release_holds_until_it_is_found_anew(tmp_path: Path) -> None:
    kept = {"held": True, "agreement": 0.1, "reason": "mirrored", "by": "0001", "usual": 0.9}
    (tmp_path / "screening.json").write_text(to_json({"sha-a": kept}))
    doubts, segmenter = Doubts(tmp_path / "screening.json"), FixedSegmenter(anatomy())
    assert doubts.review([labelled("a")], None) == {"sha-a": "mirrored"}
    assert doubts.review([labelled("a")], Reference("0001", segmenter, USUAL)) == {}
    assert segmenter.asked == 1 and list(read_json(tmp_path / "screening.json")) == [labelled("a").key]


def test_only_a_good_segmenter_may_doubt() -> None:
    poor, good = {"a": {"x": 0.4}}, {"a": {"x": 0.85}}
    segmenter = FixedSegmenter(anatomy())
    assert best_reference([("draft", segmenter, poor)]) is None
    best = best_reference([("0001", segmenter, poor), ("draft", segmenter, good)])
    assert best and best.name == "draft"
    assert make_case(0).label == ""


def test_what_was_looked_at_before_a_scan_that_cannot_be_read_is_not_looked_at_again(tmp_path: Path) -> None:
    """Nor after a training that was killed among thousands of new labels."""

    def gone() -> tuple[Scan, np.ndarray]:
        raise UserError("cut off")

    segmenter = FixedSegmenter(anatomy())
    cases = [*map(labelled, "abc"), Case("d", "d", gone, label="sha-d")]
    doubts, scores = Doubts(tmp_path / "screening.json"), KeptScores(tmp_path, segmenter.system)
    for _ in range(2):
        with pytest.raises(Unusable, match="d: cut off"):
            doubts.review(cases, Reference("0001", segmenter, USUAL))
        with pytest.raises(Unusable, match="d: cut off"):
            scores.measure("0001", lambda: segmenter, cases)
    assert segmenter.asked == 6
