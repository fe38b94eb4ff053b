"""Strategies on hand-made pools: what is asked for comes first, and nothing is forgotten."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from msklabel.choose.diversity import covering_order, gap_to, typicality, unit_rows
from msklabel.choose.order import merged
from msklabel.choose.pool import Opinion, Pool
from msklabel.choose.strategies import STRATEGIES, beta_of

LABELS = ("large", "small", "rare")


def make_pool(scans: int = 12, **changes: object) -> Pool:
    """Scans of as many patients from one site, none taken, not judged."""
    base = Pool(
        ids=[f"s{i:03d}" for i in range(scans)],
        patient=np.arange(scans),
        site=np.zeros(scans, int),
        taken=np.zeros(scans, bool),
        open=np.ones(scans, bool),
        own=np.zeros(scans, bool),
        site_names=["a", "b"],
    )
    return replace(base, **changes)


def opinion(entropy: np.ndarray, embedding: np.ndarray | None = None, **changes: object) -> Opinion:
    scans = len(entropy)
    raw = np.random.default_rng(0).normal(size=(scans, 6)) if embedding is None else embedding
    vectors = unit_rows(raw)
    base = Opinion(
        system="toy",
        labels=LABELS,
        entropy=entropy,
        area=np.where(np.isnan(entropy), 0, 1.0),
        predicted_dice=1 - np.nanmean(np.where(np.isnan(entropy).all(1, keepdims=True), 0.5, entropy), axis=1),
        embedding=vectors,
        typicality=typicality(vectors, np.random.default_rng(0)),
        fresh=np.ones(scans, bool),
        broken=np.zeros(scans, bool),
        round=10,
    )
    return replace(base, **changes)


def judged(scans: int = 12, worst: int = 7) -> Pool:
    entropy = np.linspace(0.1, 0.2, scans)[:, None].repeat(3, axis=1)
    entropy[worst] = 0.9
    return make_pool(scans, opinions={"toy": opinion(entropy)})


def order(name: str, pool: Pool, seed: int = 0, **options: object) -> list[int]:
    return STRATEGIES[name](pool, options, np.random.default_rng(seed)).places.tolist()


@pytest.mark.parametrize("name", ["diverse", "cold_start"])
def test_scans_of_all_systems_are_looked_at(name: str) -> None:
    raw = np.random.default_rng(1).normal(size=(12, 6))
    entropy = np.full((12, 3), np.nan)
    first, second, unknown = np.arange(7), np.arange(7, 11), 11
    opinions = {
        system: opinion(entropy, np.where(np.isin(np.arange(12), scans)[:, None], raw, np.nan), system=system)
        for system, scans in (("ct", first), ("mr", second))
    }
    ranking = STRATEGIES[name](make_pool(opinions=opinions), {}, np.random.default_rng(0))
    assert np.flatnonzero(np.isnan(ranking.score)).tolist() == [unknown]
    assert ranking.reason(8) != ranking.reason(unknown) == "not looked at yet"
    assert {place in second for place in ranking.places[:3]} == {True, False}
    taken = np.isin(np.arange(12), first)
    best = order(name, make_pool(opinions=opinions, taken=taken, open=~taken))[:2]
    assert set(best) & set(second)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_open_scan_comes_once(name: str) -> None:
    for pool in (make_pool(), judged(), make_pool(1)):
        assert sorted(order(name, pool)) == list(range(len(pool)))
        closed = replace(pool, open=np.arange(len(pool)) % 3 == 0)
        assert sorted(order(name, closed)) == np.flatnonzero(closed.open).tolist()


@pytest.mark.parametrize("name", STRATEGIES)
def test_an_empty_pool_gives_an_empty_order(name: str) -> None:
    assert order(name, make_pool(0)) == []
    assert order(name, replace(judged(), open=np.zeros(12, bool))) == []


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_same_seed_gives_the_same_order(name: str) -> None:
    assert order(name, judged(), 5) == order(name, judged(), 5)


@pytest.mark.parametrize("name", ["uncertain", "failure", "auto"])
def test_the_doubtful_scan_comes_first(name: str) -> None:
    assert order(name, judged(worst=7))[0] == 7
    assert order(name, judged(worst=2))[0] == 2


def test_batch_serves_the_group_with_the_highest_mean() -> None:
    entropy = np.full((64, 3), 0.1)
    entropy[40] = 0.9
    ranking = order("batch", make_pool(64, opinions={"toy": opinion(entropy)}), batch=8)
    assert 40 in ranking[:8]


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_second_scan_of_a_patient_waits(name: str) -> None:
    patient = np.array([0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8])
    pool = replace(judged(), patient=patient)
    firsts = patient[order(name, pool)][:9]
    assert len(set(firsts.tolist())) == 9
    taken = np.zeros(12, bool)
    taken[0] = True
    pool = replace(pool, taken=taken, open=~taken)
    assert {1, 2} < set(order(name, pool)[-3:])


def test_auto_takes_sites_in_turn() -> None:
    entropy = np.full((12, 3), 0.1)
    entropy[:9] = 0.8  # the large site is the doubtful one
    site = (np.arange(12) >= 9).astype(int)
    pool = make_pool(12, site=site, opinions={"toy": opinion(entropy)})
    assert site[order("auto", pool)[:6]].sum() == 3
    assert site[order("cold_start", pool)[:6]].sum() == 3


def test_auto_gives_each_label_its_turn() -> None:
    entropy = np.full((30, 3), 0.05)
    for label, scan in enumerate((4, 11, 23)):
        entropy[scan, label] = 0.6
    entropy[17] = 0.4  # the highest mean
    pool = make_pool(30, opinions={"toy": opinion(entropy)})
    having = np.zeros((30, 3), bool)
    having[:, 0] = True  # every scan has the large label, none that is labelled has the others
    taken = np.zeros(30, bool)
    first, label = [], []
    for _ in range(9):
        now = replace(pool, taken=taken, open=~taken, having={"toy": having & taken[:, None]})
        ranking = STRATEGIES["auto"](now, {}, np.random.default_rng(1))
        first.append(int(ranking.places[0]))
        label.append(ranking.label)
        taken = taken.copy()
        taken[first[-1]] = True
    assert label[1::3] == ["large", "small", "rare"], "each in turn"
    assert label[2::3] == [None, None, None], "then all of them"
    assert label[3::3] == ["rare", "small"], "and those that few labelled scans have, one after the other"
    assert (first[0], first[1], first[3]) == (4, 17, 23)


def test_systems_and_their_labels_take_turns() -> None:
    said = opinion(np.full((30, 3), 0.3))
    systems = {name: replace(said, system=name) for name in ("a", "b", "c")}
    pool = make_pool(30, opinions=systems)
    seen = [STRATEGIES["auto"](replace(pool, choices=n), {}, np.random.default_rng(0)) for n in range(9)]
    assert [ranking.system for ranking in seen] == ["a", "b", "c"] * 3
    assert [ranking.label for ranking in seen] == ["large"] * 6 + [None] * 3, "for each system alike"


def test_what_is_drawn_already_of_a_scan_is_not_sought_again() -> None:
    entropy = np.full((6, 3), 0.1)
    entropy[2], entropy[4] = 0.8, 0.5
    left = np.ones((6, 4))
    left[2] = 0.3
    taken = np.arange(6) == 2  # some of its slices are drawn, and it is open all the same
    said = opinion(entropy, round=10)
    pool = make_pool(6, taken=taken, opinions={"toy": said}, left={"toy": lambda: left}, choices=2)
    assert order("auto", pool)[:2] == [4, 2], "0.5, and 0.3 of 0.8"
    assert order("auto", replace(pool, left={}))[0] == 2
    said = STRATEGIES["auto"](pool, {}, np.random.default_rng(0)).reason(2)
    assert "0.240, 30% of it not drawn yet" in said
    left[2] = 0
    said = STRATEGIES["auto"](pool, {}, np.random.default_rng(0)).reason(2)
    assert "the model has not learned yet" in said


def test_auto_seeks_a_rare_label_where_there_is_enough_of_it() -> None:
    entropy, area = np.full((12, 3), 0.3), np.ones((12, 3))
    entropy[:, 2], area[:, 2] = np.nan, 0.001  # a trace of it everywhere
    entropy[3:6, 2], area[3:6, 2] = 0.2, (2.0, 2.0, 40.0)  # three patients have it, one of them a lot
    entropy[6, 2], area[6, 2] = 0.9, 0.01  # the most uncertain, but next to nothing
    taken = np.zeros(13, bool)
    taken[[0, 1, 2, 12]] = True
    having = taken[:, None] & np.ones(3, bool)
    having[:12, 2] = False  # of those labelled one has it
    entropy, area = np.vstack([entropy, [[0.1, 0.1, 0.1]]]), np.vstack([area, [[1.0, 1.0, 1.5]]])
    pool = make_pool(13, opinions={"toy": opinion(entropy, area=area, round=10)}, having={"toy": having}, choices=3)
    first = set()
    for seed in range(12):
        closed = replace(pool, taken=taken, open=~taken)
        ranking = STRATEGIES["auto"](closed, {"rounds": 10}, np.random.default_rng(seed))
        assert (ranking.label, ranking.system) == ("rare", "toy")
        first.add(int(ranking.places[0]))
    assert first == {3, 4, 5}


def test_a_label_that_is_never_predicted_is_sought_where_it_is_likeliest() -> None:
    entropy = np.full((9, 3), 0.1)
    entropy[:, 2] = np.nan
    area = np.full((9, 3), 1.0)
    area[:, 2] = 0.001
    area[5, 2] = 0.4
    having = np.zeros((9, 3), bool)
    having[:3, :2] = True  # the third label is the scarcest
    taken = having.any(axis=1)
    said = opinion(entropy, area=area)
    pool = make_pool(9, taken=taken, open=~taken, opinions={"toy": said}, having={"toy": having})
    ranking = STRATEGIES["auto"](pool, {}, np.random.default_rng(0))
    assert ranking.label == "rare"
    assert int(ranking.places[0]) == 5


@pytest.mark.parametrize("name", ["uncertain", "failure", "batch", "auto"])
def test_unscored_is_not_last(name: str) -> None:
    entropy = np.linspace(0.1, 0.8, 40)[:, None].repeat(3, axis=1)
    entropy[:20] = np.nan
    said = opinion(entropy)
    said = replace(said, predicted_dice=np.where(np.arange(40) < 20, np.nan, said.predicted_dice))
    ranking = order(name, make_pool(40, opinions={"toy": said}))
    unscored = [place for place, scan in enumerate(ranking) if scan < 20]
    assert 4 <= sum(place < 20 for place in unscored) <= 16
    assert min(unscored) <= 3


@pytest.mark.parametrize("name", ["uncertain", "failure", "batch", "auto"])
def test_no_number_ranks_apart_at_the_end(name: str) -> None:
    pool = judged()
    broken = np.zeros(12, bool)
    broken[[7, 3]] = True
    entropy = pool.opinions["toy"].entropy.copy()
    entropy[broken] = np.nan
    dice = np.where(broken, np.nan, pool.opinions["toy"].predicted_dice)
    said = replace(pool.opinions["toy"], entropy=entropy, broken=broken, predicted_dice=dice)
    assert sorted(order(name, replace(pool, opinions={"toy": said}))[-2:]) == [3, 7]


def test_auto_starts_cold_while_nothing_is_judged() -> None:
    blank = opinion(np.full((12, 3), np.nan))
    blank = replace(blank, predicted_dice=np.full(12, np.nan))
    pool = make_pool(opinions={"toy": blank})
    assert order("auto", pool, 3) == order("cold_start", pool, 3)


def test_cold_start_takes_the_middle_of_each_cluster() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(3, 8).repeat(10, axis=0) * 10
    raw = centres + rng.normal(size=(30, 8)) * 0.5
    outlier = rng.normal(size=(1, 8)) * 30
    said = opinion(np.full((31, 3), np.nan), np.concatenate([raw, outlier]))
    pool = make_pool(31, opinions={"toy": replace(said, predicted_dice=np.full(31, np.nan))})
    ranking = order("cold_start", pool)
    assert {scan // 10 for scan in ranking[:3]} == {0, 1, 2}


def test_diverse_takes_what_is_unlike_the_taken() -> None:
    raw = np.eye(4).repeat(5, axis=0) + np.random.default_rng(0).normal(size=(20, 4)) * 0.01
    taken = np.arange(20) < 5
    pool = make_pool(20, taken=taken, open=~taken, opinions={"toy": opinion(np.full((20, 3), 0.1), raw)})
    assert {scan // 5 for scan in order("diverse", pool)[:3]} == {1, 2, 3}


def test_beta_rises_from_10_to_100() -> None:
    assert [beta_of(number, 3) for number in (0, 1, 2, 3, 9)] == pytest.approx([10, 10, 1000**0.5, 100, 100])


def test_chance_has_a_part_in_early_rounds_only() -> None:
    late = judged()
    early = replace(late, opinions={"toy": replace(late.opinions["toy"], round=1)})
    assert (
        {order("auto", late, seed)[0] for seed in range(12)}
        == {order("auto", early, seed)[0] for seed in range(12)}
        == {7}
    )
    assert len({tuple(order("auto", early, seed)[:4]) for seed in range(12)}) > 6
    near = np.linspace(0.1, 0.2, 12)[:, None].repeat(3, axis=1) ** 2
    late, early = (make_pool(12, opinions={"toy": opinion(near, round=number)}) for number in (10, 1))
    assert len({order("auto", late, seed)[0] for seed in range(12)}) == 1
    assert len({order("auto", early, seed)[0] for seed in range(12)}) > 1


def test_two_orders_become_one() -> None:
    assert merged(np.array([1, 2, 3, 4]), np.array([9])).tolist() == [1, 2, 9, 3, 4]
    assert merged(np.array([], int), np.array([5, 6])).tolist() == [5, 6]
    half = merged(np.arange(10), np.arange(10, 20))
    assert sum(half[:10] < 10) == 5


def test_diversity_by_hand() -> None:
    vectors = np.array([[1.0, 0], [0, 1.0], [-1.0, 0], [np.nan, np.nan]])
    gap = gap_to(vectors, np.array([0]))
    np.testing.assert_allclose(gap[:3], [0, np.sqrt(2), 2], atol=1e-7)
    assert np.isnan(gap[3])
    assert covering_order(vectors, np.array([1, 2]), gap[[1, 2]], np.ones(4), 2) == [2, 1]
    np.testing.assert_allclose(gap_to(vectors, np.array([0]), np.array([2, 1])), [2, np.sqrt(2)])
    assert np.isnan(typicality(vectors, np.random.default_rng(0))[3])


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_reason_tells_of_a_number_that_is_not_known(name: str) -> None:
    half = np.full((12, 3), 0.5)
    half[::2] = np.nan
    for pool in (make_pool(), make_pool(opinions={"toy": opinion(half)})):
        ranking = STRATEGIES[name](pool, {}, np.random.default_rng(0))
        reasons = [ranking.reason(int(place)) for place in ranking.places]
        assert len(reasons) == 12
        assert not [reason for reason in reasons if "nan" in reason or not reason]


def test_a_large_pool_is_typical_in_and_out_of_the_sample_alike() -> None:
    vectors = unit_rows(np.random.default_rng(1).normal(size=(1200, 4)))
    sample = np.random.default_rng(0).choice(np.arange(1200), 512, replace=False)
    apart = np.linalg.norm(vectors[:, None] - vectors[sample], axis=2)
    by_hand = [1 / np.sort(np.delete(row, np.flatnonzero(sample == i)))[:20].mean() for i, row in enumerate(apart)]
    np.testing.assert_allclose(typicality(vectors, np.random.default_rng(0)), by_hand, rtol=2e-3)


def test_a_double_of_any_of_many_taken_scans_is_near() -> None:
    raw = np.random.default_rng(2).normal(size=(900, 8))
    vectors = unit_rows(np.concatenate([raw, raw]))
    gap = gap_to(vectors, np.arange(900))
    assert gap.shape == (1800,) and gap.max() < 1e-3
    assert gap_to(vectors, np.arange(900), np.arange(0)).shape == (0,)
