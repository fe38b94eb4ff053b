"""Networks by name: one registry, one contract.

A builder takes the input's channels, classes and patch and its own parameters, and returns a module that maps
(batch, channels, *space) to class scores (batch, classes, *space); with deep supervision, in training mode, to a list
of such tensors, the full resolution first. It declares where its deepest features are (``with_bottleneck``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from msklabel.networks.contract import Input, bottleneck_of, pooled_features
from msklabel.networks.dense_unet import build_dense_unet
from msklabel.networks.monai_networks import build_unetr, build_vnet
from msklabel.networks.plain_unet import build_plain_unet
from msklabel.networks.weights import Weights, load_weights, weights_of
from msklabel.system import ConfigError, System

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "dense_unet": build_dense_unet,
    "plain_unet": build_plain_unet,
    "unetr": build_unetr,
    "vnet": build_vnet,
}

__all__ = [
    "NETWORKS",
    "Input",
    "Weights",
    "bottleneck_of",
    "build_network",
    "load_weights",
    "loaded_network",
    "pooled_features",
    "weights_of",
]


def build_network(system: System) -> nn.Module:
    """Build the network of a system, with fresh weights.

    Raises:
        ConfigError: If the network's name, one of its parameters or the patch does not fit.
    """
    where = f"{system.name}: network"
    builder = NETWORKS.get(system.network.name)
    if builder is None:
        raise ConfigError(f"{where}.name: {system.network.name!r} is not known; networks: {', '.join(NETWORKS)}")
    parameters = dict(system.network.parameters)
    if system.train.deep_supervision:
        parameters["deep_supervision"] = True
    known = [name for name in inspect.signature(builder).parameters if name != "shape"]
    unknown = [name for name in parameters if name not in known]
    if unknown:
        raise ConfigError(
            f"{where}.{unknown[0]}: unknown key; {system.network.name} takes {', '.join(known) or 'none'}"
        )
    patch = system.patch_voxels[: system.dimensions]
    shape = Input(len(system.channels), system.classes, patch)
    return _build(builder, shape, parameters, where)


def loaded_network(system: System, weights: Weights) -> nn.Module:
    """Build the network of a system and put weights into it."""
    network = build_network(system)
    load_weights(network, weights)
    return network


def _build(builder: Callable[..., nn.Module], shape: Input, parameters: dict[str, Any], where: str) -> nn.Module:
    try:
        return builder(shape, **parameters)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error
