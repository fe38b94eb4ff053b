"""UNETR and V-Net, as MONAI has them."""

from __future__ import annotations

from monai.networks.nets import UNETR, VNet
from torch import nn

from msklabel.networks.contract import Input, with_bottleneck

_VIT_PATCH_VOXELS = 16
_VNET_STRIDE = 16


def build_unetr(
    shape: Input, *, feature_size: int = 16, hidden_size: int = 768, mlp_dim: int = 3072, num_heads: int = 12
) -> nn.Module:
    """UNETR (Hatamizadeh et al. 2022) with ViT patches of 16 voxels and twelve transformer layers."""
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


def build_vnet(shape: Input, *, dropout: float = 0.5) -> nn.Module:
    """V-Net (Milletari et al. 2016): sixteen features at full resolution, four halvings.

    MONAI applies ``dropout`` in the two deepest stages on the way down and the first two on the way up.
    """
    shape.require_multiple_of([_VNET_STRIDE] * shape.dimensions)
    network = VNet(
        spatial_dims=shape.dimensions,
        in_channels=shape.channels,
        out_channels=shape.classes,
        dropout_prob_down=dropout,
        dropout_prob_up=(dropout, dropout),
    )
    return with_bottleneck(network, "down_tr256")
