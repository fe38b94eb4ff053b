"""Dense U-Net: a U-Net whose convolution blocks are dense blocks.

After Imani et al. 2025 (doi:10.1002/jcsm.13728, section 2.4.1) and the network that it refers to, Cai et al. 2020
(Quantitative Imaging in Medicine and Surgery 10(6), 1275-1285): densely connected layers of batch norm, ReLU and
3x3 convolution, a 1x1 transition after each block, pooling on the way down and transposed convolution on the way up.
The exact numbers of layers and features are in the paper's supplement only, so they are parameters.
"""

from __future__ import annotations

import torch
from torch import nn

from msklabel.networks.contract import Input, with_bottleneck


class DenseBlock(nn.Module):
    """Layers that each see the outputs of all before them, then a 1x1 transition to ``features_out``."""

    def __init__(self, features_in: int, features_out: int, layers: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(features_in + i * growth),
                nn.ReLU(inplace=True),
                nn.Conv2d(features_in + i * growth, growth, 3, padding=1, bias=False),
            )
            for i in range(layers)
        )
        total = features_in + layers * growth
        self.transition = nn.Sequential(
            nn.BatchNorm2d(total), nn.ReLU(inplace=True), nn.Conv2d(total, features_out, 1, bias=False)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, features_in, X, Y) to (B, features_out, X, Y)."""
        for layer in self.layers:
            x = torch.cat((x, layer(x)), dim=1)
        return self.transition(x)


class DenseUNet(nn.Module):
    """Dense U-Net for (B, channels, X, Y); X and Y must be multiples of ``2 ** (levels - 1)``.

    Args:
        channels: Input channels.
        classes: Output classes.
        levels: Resolutions, the full one included.
        layers_per_block: Convolutions in each dense block.
        growth: Features that each convolution adds.
        first_features: Features at full resolution; each level below has twice as many.
    """

    def __init__(
        self, channels: int, classes: int, levels: int, layers_per_block: int, growth: int, first_features: int
    ) -> None:
        super().__init__()
        features = [first_features * 2**level for level in range(levels)]
        self.stem = nn.Conv2d(channels, first_features, 3, padding=1, bias=False)
        self.down = nn.ModuleList(
            DenseBlock(features[max(0, level - 1)], features[level], layers_per_block, growth)
            for level in range(levels)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(features[level + 1], features[level], 2, stride=2) for level in range(levels - 1)
        )
        self.merge = nn.ModuleList(
            DenseBlock(2 * features[level], features[level], layers_per_block, growth) for level in range(levels - 1)
        )
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Conv2d(first_features, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, channels, X, Y) to class scores (B, classes, X, Y)."""
        x = self.stem(x)
        skips = []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            skips.append(x)
        for level in reversed(range(len(self.up))):
            x = self.merge[level](torch.cat((skips[level], self.up[level](x)), dim=1))
        return self.head(x)


def build_dense_unet(
    shape: Input, *, levels: int = 5, layers_per_block: int = 4, growth: int = 16, first_features: int = 32
) -> nn.Module:
    """Build a :class:`DenseUNet`; ValueError if the input is not 2D or the patch does not divide."""
    if shape.dimensions != 2:
        raise ValueError("dense_unet works on 2D slices; set dimensions: 2")
    shape.require_multiple_of([2 ** (levels - 1)] * 2)
    network = DenseUNet(shape.channels, shape.classes, levels, layers_per_block, growth, first_features)
    return with_bottleneck(network, f"down.{levels - 1}")
