"""Further opinions on a scan beside the plain prediction: mirrored, with dropout, by earlier versions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from msklabel.networks import bottleneck_of, pooled_features
from msklabel.pipeline.preprocess import Prepared
from msklabel.pipeline.sides import Sides
from msklabel.predict.backends import TellsFeatures


def mirrored(prepared: Prepared, axis: int) -> Prepared:
    """A prepared scan mirrored along an axis; left and right change places with axis 0."""
    sides = prepared.sides
    if sides and axis == 0:
        sides = Sides(sides.width - sides.plane, sides.width)
    return replace(prepared, image=prepared.image.flip(axis + 1), sides=sides)


@contextlib.contextmanager
def dropout_on(network: nn.Module, seed: int) -> Iterator[None]:
    """Switch on the dropout modules, and nothing else that training changes; random numbers from a seed.

    Raises:
        ValueError: If the network has no dropout.
    """
    modules = [module for module in network.modules() if isinstance(module, _DropoutNd) and module.p > 0]
    if not modules:
        raise ValueError("the network has no dropout")
    before = [module.training for module in modules]
    devices = [p.device for p in network.parameters() if p.device.type == "cuda"][:1]
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        for module in modules:
            module.train()
        try:
            yield
        finally:
            for module, mode in zip(modules, before, strict=True):
                module.train(mode)


class Embedding:
    """Collects the mean of a network's deepest features while it predicts; a context manager.

    Args:
        source: Built by the registry, or what runs it, where that tells its features.
    """

    def __init__(self, source: nn.Module | TellsFeatures) -> None:
        self._source = source
        self._sum: torch.Tensor | None = None
        self._windows = 0

    def __enter__(self) -> Embedding:
        if isinstance(self._source, nn.Module):
            module = bottleneck_of(self._source)
            self._handle = module.register_forward_hook(lambda _, given, output: self._add(pooled_features(output)))
        else:
            self._source.features = lambda features: self._add(features[None])
        return self

    def __exit__(self, *error: object) -> None:
        if isinstance(self._source, nn.Module):
            self._handle.remove()
        else:
            self._source.features = None

    @property
    def vector(self) -> torch.Tensor:
        """Mean over windows and places, shape (F,), float32; empty if no window came."""
        return torch.zeros(0) if self._sum is None else (self._sum / self._windows).cpu()

    def _add(self, features: torch.Tensor) -> None:
        total = features.sum(0)
        self._sum = total if self._sum is None else self._sum + total
        self._windows += len(features)
