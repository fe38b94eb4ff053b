"""V-Net with another number of features than the paper's."""

import pytest
import torch

from msklabel.networks.contract import Input
from msklabel.networks.monai_networks import build_vnet

SHAPE = Input(2, 4, (16, 16, 16))


def test_half_the_features_are_the_same_network_with_half_the_channels() -> None:
    paper, small = build_vnet(SHAPE).state_dict(), build_vnet(SHAPE, features=8).state_dict()
    assert list(small) == list(paper)
    deepest = "down_tr256.ops.0.conv_block.conv.weight"
    assert (paper[deepest].shape[:2], small[deepest].shape[:2]) == ((256, 256), (128, 128))


def test_sixteen_features_are_monais_own_network() -> None:
    torch.manual_seed(0)
    paper = build_vnet(SHAPE).state_dict()
    torch.manual_seed(0)
    sixteen = build_vnet(SHAPE, features=16).state_dict()
    assert all(torch.equal(paper[name], sixteen[name]) for name in paper)


def test_without_dropout_training_is_the_same_twice() -> None:
    image = torch.randn(2, 2, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    network = build_vnet(SHAPE, features=4, dropout=0).train()
    assert torch.equal(network(image), network(image))


def test_features_that_the_channels_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"features must be a multiple of the 2 channel\(s\), got 3"):
        build_vnet(SHAPE, features=3)
