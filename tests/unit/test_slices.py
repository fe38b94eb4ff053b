"""Slices to draw: uncertain, spread, in the numbers of the scan as stored."""

import numpy as np
import pytest

from msklabel.choose.slices import native_weights, plan_slices, plan_strided, slice_weights, spread, strided
from msklabel.choose.summary import Slices, Summary


def summary(entries: int = 40, doubt: dict[int, float] | None = None, **changes: object) -> Summary:
    """Two labels, the second small and at one end; a little uncertain everywhere."""
    area = np.zeros((2, entries))
    area[0, 4:36], area[1, 30:34] = 50, 0.5
    uncertain = area * 0.02
    for entry, value in (doubt or {}).items():
        uncertain[:, entry] += value * area[:, entry]
    facts: dict[str, object] = {
        "model_version": "v1",
        "members": ("network 0",),
        "uncertain_cm2": uncertain,
        "area_cm2": area,
        "volume_cm3": area.sum(axis=1)[None],
        "agreement": np.empty((0, 2)),
        "expected_dice": np.ones(2),
        "information": np.full(2, np.nan),
        "embedding": np.empty(0),
        "slices": Slices(2, False, entries, entries),
    }
    return Summary(**{**facts, **changes})


def test_uncertain_slices_are_among_them() -> None:
    plan = plan_slices(summary(doubt={9: 3.0, 21: 3.0}), 4)
    assert min(abs(z - 9) for z in plan.indices) <= 1
    assert min(abs(z - 21) for z in plan.indices) <= 1
    assert plan.reason == "uncertain and spread"


def test_they_are_spread_and_on_the_anatomy() -> None:
    plan = plan_slices(summary(), 5)
    assert len(set(plan.indices)) == 5
    assert all(3 <= z <= 36 for z in plan.indices)
    assert min(np.diff(plan.indices)) >= 3
    assert any(29 <= z <= 34 for z in plan.indices)  # the small label


def test_a_small_label_weighs_as_much_as_a_large_one() -> None:
    weights = slice_weights(summary())
    assert weights.sum() == pytest.approx(1)
    assert weights[30:34].sum() > 0.25 + 0.5 * 4 / 32


def test_slices_for_one_label_are_where_that_label_is() -> None:
    assert set(plan_slices(summary(), 2, label=1).indices) <= set(range(30, 34))
    weights = slice_weights(summary(volume_cm3=np.zeros((1, 2))), 1)  # expected, though no voxel is predicted to be it
    assert weights.sum() == pytest.approx(1)
    assert weights[30:34].sum() == pytest.approx(1)


def test_they_are_slices_of_the_scan_as_stored() -> None:
    plan = plan_slices(summary(doubt={9: 9.0}, slices=Slices(1, True, 100, 50, start=5)), 1)
    assert plan.axis == 1
    assert abs(plan.indices[0] - (99 - 2 * (9 + 5))) <= 10  # and not 28, the same in the other direction


def test_drawn_slices_are_not_drawn_again() -> None:
    first = plan_slices(summary(), 3)
    second = plan_slices(summary(), 3, first.indices)
    assert not set(first.indices) & set(second.indices)
    assert len(plan_strided(2, 10, 4, (2, 3)).indices) == 4


@pytest.mark.parametrize("count", [1, 3, 40, 60])
def test_there_are_never_more_than_there_are(count: int) -> None:
    plan = plan_slices(summary(), count)
    assert len(plan.indices) == min(count, 40)
    assert list(plan.indices) == sorted(set(plan.indices))
    assert len(plan_strided(0, 40, count).indices) == min(count, 40)


def test_strided_by_hand() -> None:
    assert strided(0, 10, 2) == [2, 7]
    assert strided(0, 1, 5) == [0]
    assert spread(np.ones(9), 1) == [4]


def test_a_broken_judgement_is_not_followed() -> None:
    assert plan_slices(summary(finite=False), 4).reason == "strided"


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize(
    ("native", "working", "start", "entries", "step", "first", "last"),
    [
        (100, 20, 0, 20, 1, 0, 99),  # thin slices: those at the ends of an entry, too
        (400, 80, 0, 16, 5, 0, 399),
        (10, 50, 10, 30, 1, 2, 7),  # thick ones: none beyond the crop
        (12, 12, 3, 4, 1, 3, 6),
        (3, 30, 13, 2, 1, 1, 1),  # a crop thinner than a slice lies in one
    ],
)
def test_slices_of_the_crop_are_worth_drawing_and_no_others(
    native: int, working: int, start: int, entries: int, step: int, first: int, last: int, flipped: bool
) -> None:
    where = Slices(axis=2, flipped=flipped, native=native, working=working, start=start, step=step)
    all_over = np.ones((2, entries))
    [weights] = native_weights(summary(entries, slices=where, area_cm2=all_over, uncertain_cm2=all_over), [None])
    worth = np.flatnonzero(weights > 0)
    expected = np.arange(first, last + 1)
    np.testing.assert_array_equal(worth, np.sort(native - 1 - expected) if flipped else expected)
