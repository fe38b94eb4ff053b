"""Weights out of and into a network, each tensor once even where modules share it."""

from __future__ import annotations

import itertools

import torch
from torch import nn

Weights = dict[str, torch.Tensor]


def weights_of(network: nn.Module) -> Weights:
    """Copies on the CPU of every parameter and buffer under its first name; a shared one appears once."""
    named = itertools.chain(network.named_parameters(), network.named_buffers())
    return {name: tensor.detach().cpu().clone() for name, tensor in named}


def load_weights(network: nn.Module, weights: Weights) -> None:
    """Put weights from :func:`weights_of` into a network of the same architecture.

    Raises:
        ValueError: If names or shapes differ.
    """
    own = {name: tensor.shape for name, tensor in weights_of(network).items()}
    given = {name: tensor.shape for name, tensor in weights.items()}
    if own != given:
        differing = sorted(name for name in own.keys() | given.keys() if own.get(name) != given.get(name))
        raise ValueError(
            f"weights do not fit the network: {len(differing)} tensors differ, the first is {differing[0]}"
        )
    network.load_state_dict(weights, strict=False)
