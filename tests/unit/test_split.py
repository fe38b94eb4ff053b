"""Who validates: early enough, once and for good, and never together with training."""

from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np

from msklabel.learn.split import TRAIN, VALIDATION, RolesInFile, decide_roles, is_validation

PATIENTS = [f"patient-{i}" for i in range(2000)]
NEVER_BY_HASH = [name for name in PATIENTS if not is_validation(name)][:20]
ALWAYS_BY_HASH = [name for name in PATIENTS if is_validation(name)][:20]


def validating(roles: dict[str, str]) -> list[int]:
    """Positions of those that validate, from 1."""
    return [number for number, role in enumerate(roles.values(), 1) if role == VALIDATION]


def test_the_first_patients_fill_a_minimal_validation_set() -> None:
    assert validating(decide_roles(NEVER_BY_HASH, {})) == [2, 5, 8, 11, 14, 17]


def test_there_is_always_enough_to_train_on() -> None:
    roles = decide_roles(ALWAYS_BY_HASH, {})
    assert roles[ALWAYS_BY_HASH[0]] == TRAIN
    for count in range(3, 21):
        assert sum(number <= count for number in validating(roles)) <= max(count / 3, (count + 1) // 3)


def test_later_on_one_in_five_validates() -> None:
    roles = decide_roles(PATIENTS, {})
    assert 0.17 < np.mean([role == VALIDATION for role in roles.values()]) < 0.23
    assert all((roles[name] == VALIDATION) == is_validation(name) for name in PATIENTS[100:])


def test_what_is_decided_holds_whoever_comes_later_and_in_whatever_steps() -> None:
    at_once = decide_roles(PATIENTS[:40], {})
    in_steps: dict[str, str] = {}
    for count in (1, 2, 3, 10, 40):
        new = decide_roles(PATIENTS[:count], in_steps)
        assert not new.keys() & in_steps.keys()
        in_steps |= new
    assert in_steps == at_once
    assert decide_roles(reversed(PATIENTS[:40]), at_once) == {}


def test_several_scans_of_a_patient_count_once() -> None:
    assert list(decide_roles(["a", "a", "b", "a"], {})) == ["a", "b"]


def test_the_first_decision_wins_between_writers(tmp_path: Path) -> None:
    def decide(number: int) -> dict[str, str]:
        return RolesInFile(tmp_path).assign_roles("toy", {"anna": (TRAIN, VALIDATION)[number % 2], f"p{number}": TRAIN})

    with ThreadPool(8) as pool:
        answers = pool.map(decide, range(24))
    assert len({answer["anna"] for answer in answers}) == 1
    assert len(RolesInFile(tmp_path).roles("toy")) == 25
    assert RolesInFile(tmp_path).roles("other") == {}
