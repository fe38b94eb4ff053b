"""Coarse to fine: fewer windows, the same labels, and never less than plain prediction where nothing is found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from test_engine import ByIntensity
from test_preprocess import make_system
from test_restore import Blurring
from torch import nn

from msklabel.imaging import Scan
from msklabel.predict.engine import Engine, dice
from msklabel.predict.locate import coarse_image, fine_box, labelled_box, widened
from msklabel.sections import Locate
from msklabel.system import System

SHAPE = (96, 80, 40)
TARGET = (slice(20, 44), slice(30, 52), slice(8, 22))
LOCATE = {"coarsen": [2, 2, 2], "margin_voxels": [4, 4, 4]}


class DenseOnly(ByIntensity):
    """Labels only what is dense; soft tissue is background."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = super().forward(x)
        return torch.stack((scores[:, 2], scores[:, 1] + 1, scores[:, 0] - 100), 1)


class Counting(nn.Module):
    """Knows how many windows went through a network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.windows = network, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.windows += len(x)
        return self.network(x)


def body(target: tuple[slice, slice, slice] = TARGET) -> Scan:
    """A body of soft tissue with noise, which fills the scan, and something dense in it."""
    hu = np.random.default_rng(0).normal(50, 8, SHAPE).astype(np.float32)
    hu[target] += 550
    return Scan(hu[None], np.eye(4))


def system_of(dimensions: int, **predict: object) -> System:
    patch = {2: [16, 16, 1], 3: [16, 16, 16]}[dimensions]
    changes = {"dimensions": dimensions, "patch_voxels": patch, "spacing_mm": [None, None, None]}
    return make_system(
        **changes, network={"name": "vnet"} if dimensions == 3 else {"name": "dense_unet"}, predict=predict
    )


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("members", [1, 2])
def test_the_labels_are_those_of_plain_prediction_for_fewer_windows(dimensions: int, members: int) -> None:
    found, windows = [], []
    for predict in ({}, {"locate": LOCATE}):
        networks = [Counting(DenseOnly()) for _ in range(members)]
        found.append(Engine(system_of(dimensions, **predict), networks)(body()).labels.array)
        windows.append(networks[0].windows)
    plain, located = found
    assert set(np.unique(plain)) == {0, 1}
    assert dice(located, plain, 1) == 1
    assert windows[1] < windows[0] / 2


def test_a_network_that_sees_neighbours_gives_nearly_the_same_labels() -> None:
    class Around(nn.Module):
        """Dense where the mean over five neighbours is, and a little of its place in the window."""

        def __init__(self) -> None:
            super().__init__()
            self.smooth, self.place = nn.AvgPool3d(5, 1, 2), Blurring(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return DenseOnly().forward(self.smooth(x)) + 0.02 * self.place(x)

    plain, located = (
        Engine(system_of(3, **predict), Around())(body()).labels.array for predict in ({}, {"locate": LOCATE})
    )
    assert plain.any()
    assert dice(located, plain, 1) > 0.99


def test_where_nothing_is_found_everything_is_looked_at() -> None:
    small = (slice(50, 51), slice(40, 41), slice(20, 21))  # vanishes on the coarse grid
    counting = Counting(DenseOnly())
    labels = Engine(system_of(3, locate={"coarsen": [4, 4, 4]}), counting)(body(small)).labels.array
    plain = Counting(DenseOnly())
    np.testing.assert_array_equal(Engine(system_of(3), plain)(body(small)).labels.array, labels)
    assert labels[small].all()
    assert counting.windows > plain.windows


def test_whoever_waits_is_told_and_can_end_it_while_it_locates() -> None:
    told: list[tuple[int, int]] = []
    Engine(system_of(3, locate=LOCATE), DenseOnly())(body(), lambda *progress: told.append(progress))
    assert told[0] == (0, 1) and told[-1][0] == told[-1][1] > 1

    def end(*_: int) -> None:
        raise KeyboardInterrupt

    counting = Counting(DenseOnly())
    with pytest.raises(KeyboardInterrupt):
        Engine(system_of(3, locate=LOCATE), counting)(body(), end)
    assert counting.windows == 0


def test_boxes_by_hand() -> None:
    image = torch.zeros((1, 20, 20, 6))
    image[0, 3:5, 7:8, 2:4] = 1
    box = labelled_box(image, (8, 8, 2), 0.5, 3, lambda windows: windows[:, 0] > 0)
    assert box == (slice(3, 5), slice(7, 8), slice(2, 4))
    assert labelled_box(image, (8, 8, 2), 0.5, 3, lambda windows: windows[:, 0] > 2) is None
    fine = fine_box(box, (20, 20, 6), (40, 50, 6), (3, 0, 5))
    assert fine == (slice(3, 13), slice(17, 20), slice(0, 6))
    assert widened(fine, (40, 50, 6), (8, 10, 6)) == (slice(3, 13), slice(14, 24), slice(0, 6))
    assert widened((slice(38, 40), slice(0, 1), slice(0, 6)), (40, 50, 6), (8, 10, 6))[:2] == (
        slice(32, 40),
        slice(0, 10),
    )
    in_the_padding = (slice(20, 21), slice(0, 1), slice(0, 1))
    assert fine_box(in_the_padding, (10, 20, 6), (20, 20, 6), (0, 0, 0))[0] == slice(19, 20)


def test_the_coarse_image_is_an_average_with_its_edges_where_they_were() -> None:
    image = torch.arange(12.0).reshape(1, 12, 1, 1).expand(1, 12, 3, 5)
    coarse = coarse_image(image, Locate(coarsen=(4, 1, 2)))
    assert coarse.shape == (1, 3, 3, 2)
    torch.testing.assert_close(coarse[0, :, 0, 0], torch.tensor([1.5, 5.5, 9.5]), atol=0.6, rtol=0)


def test_a_coarse_grid_must_be_coarser() -> None:
    for coarsen in ([1, 1, 1], [0.5, 2, 2]):
        with pytest.raises(ValidationError, match="coarsen"):
            system_of(3, locate={"coarsen": coarsen})
