"""Scores of prediction: an ambiguous case comes first, whatever its background, size and number of dimensions."""

import numpy as np
import pytest
import torch

from msklabel.choose.scores import (
    bald,
    class_agreement,
    class_entropy,
    class_expected_dice,
    predicted_dice,
    predictive_entropy,
)

SHAPES = [(20, 20), (20, 20, 10)]


def case(shape: tuple[int, ...], doubt: float, members: int = 2, margin: int = 0, repeat: int = 1) -> torch.Tensor:
    """Two labels side by side in background; ``doubt`` of each goes to the other, on opposite sides in each member."""
    probabilities = torch.zeros((members, 3, *shape))
    probabilities[:, 0] = 1
    half = shape[0] // 2
    for member in range(members):
        own = doubt * (0.6 if member % 2 else 1.4)
        for label, columns in ((1, slice(4, half)), (2, slice(half, shape[0] - 4))):
            probabilities[member, :, columns] = 0
            probabilities[member, label, columns] = 1 - own
            probabilities[member, 3 - label, columns] = own
    probabilities = torch.cat([probabilities] * repeat, dim=2)
    if margin:
        pads = [margin] * 2 * len(shape)
        wide = torch.nn.functional.pad(probabilities, pads)
        wide[:, 0] = 1 - wide[:, 1:].sum(1)
        return wide
    return probabilities


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("score", "sign"), [(predictive_entropy, 1), (bald, 1), (predicted_dice, -1)])
def test_the_ambiguous_case_ranks_first(shape: tuple[int, ...], score, sign: int) -> None:
    doubts = [0.02, 0.4, 0.1, 0.2]
    values = [sign * score(case(shape, doubt)) for doubt in doubts]
    assert int(np.argmax(values)) == 1
    if score is not predicted_dice:
        assert np.argsort(values).tolist() == np.argsort(doubts).tolist()


@pytest.mark.parametrize("score", [predictive_entropy, bald, predicted_dice])
def test_2d_and_3d_have_the_same_unit(score) -> None:
    assert score(case((20, 20), 0.3)) == pytest.approx(score(case((20, 20, 7), 0.3)), rel=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("score", [predictive_entropy, bald, predicted_dice])
def test_background_and_size_do_not_count(shape: tuple[int, ...], score) -> None:
    plain = score(case(shape, 0.3))
    assert score(case(shape, 0.3, margin=9)) == pytest.approx(plain, rel=1e-5)
    assert score(case(shape, 0.3, repeat=3)) == pytest.approx(plain, rel=1e-5)


def test_entropy_by_hand() -> None:
    even = torch.full((1, 4, 2, 2), 0.25)
    assert predictive_entropy(even) == pytest.approx(1.0)
    sure = torch.zeros((1, 4, 2, 2))
    sure[0, 1] = 1
    assert class_entropy(sure)[0] == 0
    assert torch.isnan(class_entropy(sure)[1:]).all()


def test_members_that_are_alike_share_no_information() -> None:
    one = case((20, 20), 0.3, members=1)
    assert bald(torch.cat([one, one])) == pytest.approx(0, abs=1e-6)
    assert bald(case((20, 20), 0.3)) > 0.01


def test_agreement_by_hand() -> None:
    probabilities = torch.zeros((2, 3, 1, 4))
    for member, labels in enumerate(([0, 1, 1, 0], [0, 1, 0, 0])):
        for place, label in enumerate(labels):
            probabilities[member, label, 0, place] = 1
    agreement = class_agreement(probabilities)
    assert agreement[0] == pytest.approx(2 / 3)
    assert torch.isnan(agreement[1])


def test_expected_dice_by_hand() -> None:
    probabilities = torch.tensor([[[0.1, 0.6, 1.0]], [[0.9, 0.4, 0.0]]])[None]
    assert float(class_expected_dice(probabilities)[0]) == pytest.approx(2 * 0.9 / (1 + 1.3))


@pytest.mark.parametrize("score", [predictive_entropy, bald])
def test_numbers_that_are_none_give_none(score) -> None:
    broken = case((20, 20), 0.3)
    broken[0, :, 3, 3] = float("nan")
    assert np.isnan(score(broken))
