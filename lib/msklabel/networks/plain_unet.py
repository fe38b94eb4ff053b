"""The plain-convolution U-Net of nnU-Net, from its own architecture package."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from msklabel.networks.contract import Input, with_bottleneck

_CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}
_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


class PlainUNet(PlainConvUNet):
    """nnU-Net's U-Net under this package's contract: several resolutions in training mode only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Map (B, channels, *space) to class scores, or to a list of them, the full resolution first."""
        scores = super().forward(x)
        return scores if self.training or isinstance(scores, torch.Tensor) else scores[0]


def build_plain_unet(
    shape: Input,
    *,
    features: Sequence[int],
    strides: Sequence[Sequence[int]],
    convolutions: int | Sequence[int] = 2,
    kernel: int | Sequence[Sequence[int]] = 3,
    deep_supervision: bool = False,
) -> nn.Module:
    """nnU-Net's U-Net (Isensee et al. 2021): instance norm, leaky ReLU, transposed convolutions on the way up.

    Args:
        shape: Input of the network.
        features: Features of each stage, from the full resolution down.
        strides: Down-sampling of each stage along each axis; the first is all 1.
        convolutions: Convolutions in each stage on the way down, one number or one for each stage.
        kernel: Size of every convolution, one number or for each stage along each axis.
        deep_supervision: In training mode also return scores at the lower resolutions.
    """
    stages = len(features)
    if len(strides) != stages or any(len(stride) != shape.dimensions for stride in strides):
        raise ValueError(f"strides needs {stages} entries of {shape.dimensions} numbers, got {list(strides)}")
    kernels = [[kernel] * shape.dimensions] * stages if isinstance(kernel, int) else [list(sizes) for sizes in kernel]
    if len(kernels) != stages or any(len(sizes) != shape.dimensions for sizes in kernels):
        raise ValueError(f"kernel needs {stages} entries of {shape.dimensions} numbers, got {kernels}")
    shape.require_multiple_of([prod(axis) for axis in zip(*strides, strict=True)])
    down = [convolutions] * stages if isinstance(convolutions, int) else list(convolutions)
    network = PlainUNet(
        input_channels=shape.channels,
        n_stages=stages,
        features_per_stage=list(features),
        conv_op=_CONVOLUTION[shape.dimensions],
        kernel_sizes=kernels,
        strides=[list(stride) for stride in strides],
        n_conv_per_stage=down,
        num_classes=shape.classes,
        n_conv_per_stage_decoder=down[:-1],
        conv_bias=True,
        norm_op=_NORM[shape.dimensions],
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=deep_supervision,
    )
    network.apply(network.initialize)
    return with_bottleneck(network, f"encoder.stages.{stages - 1}")
