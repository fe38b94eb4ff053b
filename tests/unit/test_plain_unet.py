"""nnU-Net's U-Net takes kernels for each stage, as its plans for thick slices have them."""

import pytest
import torch

from msklabel.networks.contract import Input
from msklabel.networks.plain_unet import build_plain_unet

SHAPE = Input(2, 3, (8, 8, 4))
STRIDES = [[1, 1, 1], [2, 2, 2]]


def test_thick_slices_get_flat_kernels_at_the_full_resolution_only() -> None:
    network = build_plain_unet(SHAPE, features=[4, 6], strides=STRIDES, convolutions=1, kernel=[[3, 3, 1], [3, 3, 3]])

    sizes = {
        name: module.kernel_size for name, module in network.named_modules() if isinstance(module, torch.nn.Conv3d)
    }
    assert {size for name, size in sizes.items() if "stages.1" in name} == {(3, 3, 3)}
    assert {size for name, size in sizes.items() if ".stages.0" in name} == {(3, 3, 1)}  # down and up
    assert network.eval()(torch.zeros(1, 2, 8, 8, 4)).shape == (1, 3, 8, 8, 4)


@pytest.mark.parametrize("kernel", [[[3, 3, 1]], [[3, 3], [3, 3]]])
def test_kernels_that_do_not_fit_the_stages_are_refused(kernel: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="kernel needs 2 entries of 3 numbers"):
        build_plain_unet(SHAPE, features=[4, 6], strides=STRIDES, kernel=kernel)
