"""What every network builder is told about its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Input:
    """Shape of what goes in and comes out.

    Attributes:
        channels: Input channels.
        classes: Classes, background included.
        patch_voxels: Size of the input along each axis; two or three axes.
    """

    channels: int
    classes: int
    patch_voxels: tuple[int, ...]

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return len(self.patch_voxels)

    def require_multiple_of(self, strides: Sequence[int]) -> None:
        """Raise ValueError unless the patch divides by the network's total stride along each axis."""
        wrong = [n for n, stride in zip(self.patch_voxels, strides, strict=True) if n % stride]
        if wrong:
            raise ValueError(f"patch_voxels {list(self.patch_voxels)} must be a multiple of {list(strides)}")


def with_bottleneck(network: nn.Module, name: str) -> nn.Module:
    """Declare which submodule of a network gives its deepest features, (B, F, *space) or, of a transformer, (B, T, F).

    Raises:
        AttributeError: If it has no such submodule.
    """
    network.get_submodule(name)
    vars(network)["bottleneck"] = name
    return network


def bottleneck_of(network: nn.Module) -> nn.Module:
    """The submodule that gives the deepest features; every builder of the registry declares one."""
    return network.get_submodule(vars(network)["bottleneck"])


def pooled_features(output: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Mean over places of what the bottleneck gives, (B, F) in float32."""
    features = output[0] if isinstance(output, tuple) else output
    places = [1] if features.ndim == 3 else list(range(2, features.ndim))  # a transformer's tokens, or space
    return features.float().mean(places)
