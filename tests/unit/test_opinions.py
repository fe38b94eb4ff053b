"""Opinions are brought up to date by what is new, and are then what they would be if read from the start."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pytest

from msklabel.choose import opinions as module
from msklabel.choose.opinions import Opinions
from msklabel.choose.pool import Opinion
from msklabel.choose.summary import IMAGE_ONLY, Slices, Summary, to_bytes
from msklabel.system import load_system

SYSTEM = load_system(Path(__file__).parents[2] / "configs" / "hip_tissue_ct.yaml")
LABELS = len(SYSTEM.labels)


@dataclass
class Row:
    """A stored score."""

    id: int
    image_id: str
    model_version: str
    summary: bytes
    values: dict[str, float]


def score(number: int, image_id: str, version: str = "v1", labels: int = LABELS, finite: bool = True) -> Row:
    rng = np.random.default_rng(number)
    area = rng.random((labels, 3))
    summary = Summary(
        model_version=version,
        members=("network 0",),
        uncertain_cm2=area * rng.random((labels, 1)),
        area_cm2=area,
        volume_cm3=area.sum(axis=1)[None],
        agreement=rng.random((1, labels)),
        expected_dice=rng.random(labels),
        information=rng.random(labels),
        embedding=rng.normal(size=12),
        slices=Slices(2, False, 3, 3),
    )
    return Row(number, image_id, version, to_bytes(summary), {**summary.values, "finite": float(finite)})


def looked_at(number: int, image_id: str) -> Row:
    features = np.random.default_rng(number).normal(size=6).astype(np.float16)
    return Row(number, image_id, IMAGE_ONLY, features.tobytes(), {})


def names(count: int) -> list[str]:
    return [f"s{number:04d}" for number in range(count)]


def same(a: Opinion, b: Opinion) -> bool:
    def equal(name: str) -> bool:
        one, other = getattr(a, name), getattr(b, name)
        if isinstance(one, np.ndarray):
            return one.shape == other.shape and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
        return bool(one == other)

    return all(equal(column.name) for column in fields(Opinion))


def anew(rows: Sequence[Row], ids: Sequence[str], serving: str | None, number: int) -> Opinion:
    opinions = Opinions(SYSTEM)
    opinions.read(rows)
    return opinions.of(ids, serving, number)


@pytest.mark.parametrize("seed", range(8))
def test_step_by_step_is_the_same_as_at_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    opinions, rows, ids, serving = Opinions(SYSTEM), [], names(20), "v1"
    for step in range(12):
        for _ in range(int(rng.integers(4))):
            one = f"s{rng.integers(24):04d}"  # some are not in the pool, or not yet
            number = len(rows) + 1
            kinds = [
                score(number, one, serving),
                score(number, one, "v0", finite=False),
                score(number, one, "v0", labels=LABELS + 1),
                looked_at(number, one),
            ]
            rows.append(kinds[int(rng.integers(4))])
        opinions.read(rows[opinions.last :])
        if step == 5:
            ids = names(24)
        if step == 8:
            ids, serving = names(22)[2:], "v2"
        assert same(opinions.of(ids, serving, step), anew(rows, ids, serving, step))


def test_nothing_new_is_the_same_object() -> None:
    opinions = Opinions(SYSTEM)
    opinions.read([score(1, "s0000"), score(2, "s0001")])
    first = opinions.of(names(3), "v1", 1)
    assert opinions.of(names(3), "v1", 1) is first
    opinions.read([score(3, "elsewhere")])
    assert same(opinions.of(names(3), "v1", 1), first)
    assert opinions.of(names(3), "v1", 2).round == 2


def test_what_was_given_away_does_not_change() -> None:
    opinions = Opinions(SYSTEM)
    opinions.read([score(1, "s0000"), score(2, "s0001")])
    first = opinions.of(names(2), "v1", 1)
    kept = first.entropy.copy()
    opinions.read([score(3, "s0000")])
    assert not np.array_equal(opinions.of(names(2), "v1", 1).entropy, kept)
    assert np.array_equal(first.entropy, kept)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Lets comparisons of embeddings that are made beside end only when it is set."""
    go, compare = threading.Event(), Opinions._compare_beside

    def late(self: Opinions, ids: Sequence[str]) -> None:
        go.wait(30)
        compare(self, ids)

    monkeypatch.setattr(Opinions, "_compare_beside", late)
    yield go
    go.set()


def test_in_a_large_pool_a_new_score_counts_at_once_and_its_embedding_later(
    held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REST_S", 0.0)
    ids = names(150)
    rows = [score(number, image_id, "v1") for number, image_id in enumerate(ids[:-1], 1)]
    opinions = Opinions(SYSTEM)
    opinions.read(rows)
    before = opinions.of(ids, "v1", 1)
    rows.append(score(150, ids[-1], "v1"))
    opinions.read(rows[-1:])
    now, full = opinions.of(ids, "v1", 1), anew(rows, ids, "v1", 1)
    assert now.scored[-1] and np.array_equal(now.entropy, full.entropy)
    assert now.embedding is before.embedding and np.isnan(now.typicality[-1])
    held.set()
    assert opinions._comparing is not None
    opinions._comparing.join(30)
    assert same(opinions.of(ids, "v1", 1), full)


def test_scans_that_come_and_go_keep_their_embeddings_meanwhile(held: threading.Event) -> None:
    ids = names(150)
    opinions = Opinions(SYSTEM)
    opinions.read([score(number, image_id) for number, image_id in enumerate(ids, 1)])
    before = opinions.of(ids, "v1", 1)
    now = opinions.of(["a new one", *ids[1:]], "v1", 1)
    assert np.array_equal(now.embedding[1:], before.embedding[1:])
    assert np.isnan(now.embedding[0]).all() and not now.scored[0]


def test_a_scan_whose_description_is_no_number_keeps_nobody_from_a_next_one() -> None:
    rows = [looked_at(number, name) for number, name in enumerate(names(6), 1)]
    rows[2].summary = np.full(6, np.inf, np.float16).tobytes()
    opinions = Opinions(SYSTEM)
    opinions.read(rows)
    now = opinions.of(names(6), None, 0)
    assert np.isnan(now.typicality).tolist() == [number == 2 for number in range(6)]
