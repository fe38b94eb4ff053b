"""Choosing for several systems, and scoring where scans or labels are not as they should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from store_samples import SHAPE, blocks, scan, store, write
from test_choosing import TOY, label
from test_preprocess import make_system
from test_strategies import make_pool, opinion

from msklabel.choose.pool import Pool
from msklabel.choose.strategies import STRATEGIES
from msklabel.choose.task import DiceScoring
from msklabel.store.datastore import MskDatastore

OTHER = make_system(name="other")


def mixed(choices: int) -> Pool:
    """Three scans of a system, nine of another, all judged; ``choices`` says whose turn it is."""
    first = np.arange(12) < 3
    entropy = np.linspace(0.1, 0.9, 12)[:, None].repeat(3, axis=1)
    said = {name: np.where(fits[:, None], entropy, np.nan) for name, fits in (("a", first), ("b", ~first))}
    opinions = {name: opinion(values, system=name) for name, values in said.items()}
    return make_pool(12, opinions=opinions, fits={"a": first, "b": ~first}, choices=choices)


def test_in_the_turn_of_a_system_its_scans_come_first() -> None:
    for choices, own in ((0, set(range(3))), (1, set(range(3, 12)))):
        pool = mixed(choices)
        ranking = STRATEGIES["auto"](pool, {}, np.random.default_rng(0))
        order = ranking.places.tolist()
        assert set(order[: len(own)]) == own and sorted(order) == list(range(12))
        assert "for another system than" in ranking.reason(order[-1])
        assert "for another system than" not in ranking.reason(order[0])


def dices(data: MskDatastore) -> dict[str, float]:
    return DiceScoring()({}, data)


def submit(data: MskDatastore, array: np.ndarray, tag: str, system: str, **more: object) -> None:
    file = write(data.store.state / "label.nii", array)
    data.submit("a", file, tag, {"model": system, "client_id": "ann", **more})


def test_a_label_is_scored_against_the_automatic_one_of_its_system(tmp_path: Path) -> None:
    scan(tmp_path / "s" / "a.nii.gz")
    data = store(tmp_path / "s", TOY, OTHER)
    submit(data, blocks(1, 2), "original", "toy")
    submit(data, np.ones(SHAPE, np.uint8), "original", "other")  # the newer one, and no draft of this label
    submit(data, blocks(1, 2), "final", "toy")
    assert dices(data) == {"a": 1.0}
    assert data.get_image_info("a")["scores"] == {"dice": 1.0}


def test_a_label_of_some_slices_is_scored_on_these(tmp_path: Path) -> None:
    scan(tmp_path / "s" / "a.nii.gz")
    data = store(tmp_path / "s", TOY)
    whole = blocks(1, 2)
    submit(data, whole, "original", "toy")
    some = whole * np.isin(np.arange(SHAPE[2]), [1, 3]).astype(np.uint8)
    submit(data, some, "final", "toy", annotated={"axis": 2, "slices": [1, 3]})
    assert dices(data) == {"a": 1.0}


def test_a_label_of_another_size_than_the_automatic_one_is_left_out(tmp_path: Path) -> None:
    scan(tmp_path / "s" / "a.nii.gz")
    data = store(tmp_path / "s", TOY)
    submit(data, blocks(1), "original", "toy")
    write(tmp_path / "s" / "a.nii.gz", np.zeros((14, 12, 6), np.int16))
    data.refresh()
    label(data, "a")
    assert dices(data) == {}
