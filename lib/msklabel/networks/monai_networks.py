"""UNETR and V-Net, as MONAI has them. MONAI takes seconds to import: only who builds one of them waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from msklabel.networks.contract import Input, with_bottleneck

if TYPE_CHECKING:
    from monai.networks.nets import VNet

_VIT_PATCH_VOXELS = 16
_VNET_STRIDE = 16
_VNET_FEATURES = 16  # what MONAI's class has


def build_unetr(
    shape: Input, *, feature_size: int = 16, hidden_size: int = 768, mlp_dim: int = 3072, num_heads: int = 12
) -> nn.Module:
    """UNETR (Hatamizadeh et al. 2022) with ViT patches of 16 voxels and twelve transformer layers."""
    from monai.networks.nets import UNETR

    shape.require_multiple_of([_VIT_PATCH_VOXELS] * shape.dimensions)
    network = UNETR(
        in_channels=shape.channels,
        out_channels=shape.classes,
        img_size=shape.patch_voxels,
        feature_size=feature_size,
        hidden_size=hidden_size,
        mlp_dim=mlp_dim,
        num_heads=num_heads,
        norm_name="instance",
        spatial_dims=shape.dimensions,
    )
    return with_bottleneck(network, "vit")


def build_vnet(shape: Input, *, features: int = 16, dropout: float = 0.5) -> nn.Module:
    """V-Net (Milletari et al. 2016): four halvings, features doubling with each; the paper has 16 at full resolution.

    MONAI applies ``dropout`` in the two deepest stages on the way down and the first two on the way up.
    """
    from monai.networks.nets import VNet

    shape.require_multiple_of([_VNET_STRIDE] * shape.dimensions)
    if features < 1 or features % shape.channels:
        raise ValueError(f"features must be a multiple of the {shape.channels} channel(s), got {features}")
    network = VNet(
        spatial_dims=shape.dimensions,
        in_channels=shape.channels,
        out_channels=shape.classes,
        dropout_prob_down=dropout,
        dropout_prob_up=(dropout, dropout),
    )
    if features != _VNET_FEATURES:
        network = _narrowed(network, shape, features, dropout)
    return with_bottleneck(network, "down_tr256")


def _narrowed(network: VNet, shape: Input, features: int, dropout: float) -> VNet:
    """The same V-Net with another number of features, which MONAI's constructor fixes."""
    from monai.networks.nets.vnet import DownTransition, InputTransition, OutputTransition, UpTransition

    act = ("elu", {"inplace": True})  # VNet's default
    dims, f = shape.dimensions, features
    network.in_tr = InputTransition(dims, shape.channels, f, act)
    network.down_tr32 = DownTransition(dims, f, 1, act)
    network.down_tr64 = DownTransition(dims, 2 * f, 2, act)
    network.down_tr128 = DownTransition(dims, 4 * f, 3, act, dropout_prob=dropout)
    network.down_tr256 = DownTransition(dims, 8 * f, 2, act, dropout_prob=dropout)
    network.up_tr256 = UpTransition(dims, 16 * f, 16 * f, 2, act, dropout_prob=(dropout, dropout))
    network.up_tr128 = UpTransition(dims, 16 * f, 8 * f, 2, act, dropout_prob=(dropout, dropout))
    network.up_tr64 = UpTransition(dims, 8 * f, 4 * f, 1, act, dropout_prob=(None, dropout))
    network.up_tr32 = UpTransition(dims, 4 * f, 2 * f, 1, act, dropout_prob=(None, dropout))
    network.out_tr = OutputTransition(dims, 2 * f, shape.classes, act)
    return network
