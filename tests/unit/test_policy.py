"""When a training starts by itself."""

import pytest

from msklabel.errors import UserError
from msklabel.learn.policy import Policy, due, parse_policy

NOW_S = 1_000_000.0
POLICY = Policy(labels=3, minutes=30)


def stored(**minutes_ago: float) -> dict[str, float]:
    return {label: NOW_S - 60 * minutes for label, minutes in minutes_ago.items()}


@pytest.mark.parametrize(
    ("labels", "considered", "reason"),
    [
        ({}, (), ""),
        (stored(a=1, b=2), (), ""),
        (stored(a=1, b=2, c=3), (), "3 new labels"),
        (stored(a=1, b=2, c=3), ("a",), ""),
        (stored(a=1, b=31), (), "2 new label(s), the first 31 minutes old"),
        (stored(a=1, b=31), ("b",), ""),
        (stored(a=-600), (), "1 new label(s), the first 600 minutes old"),  # the clock was set back
        (stored(a=1, b=2, c=3, d=4), ("z", "a"), "3 new labels"),
    ],
)
def test_enough_labels_or_enough_time(labels: dict[str, float], considered: tuple[str, ...], reason: str) -> None:
    assert due(labels, considered, (), NOW_S, POLICY) == reason


def test_what_failed_is_not_tried_again_until_something_is_new() -> None:
    labels = stored(a=1, b=2, c=3)
    assert due(labels, (), ("a", "b", "c"), NOW_S, POLICY) == ""
    assert due({**labels, **stored(d=0)}, (), ("a", "b", "c"), NOW_S, POLICY) == "4 new labels"


def test_the_policy_is_read_from_one_option() -> None:
    assert parse_policy("5,2.5") == Policy(5, 2.5)
    for wrong in ("", "5", "a,b", "0,10", "5,0"):
        with pytest.raises(UserError, match="training policy"):
            parse_policy(wrong)
