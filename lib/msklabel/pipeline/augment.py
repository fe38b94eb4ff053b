"""Random changes of training crops, built from a System's recipe out of MONAI's transforms."""

from __future__ import annotations

from collections.abc import Mapping
from math import radians
from typing import Any

import torch
from monai.networks.blocks import Warp
from monai.transforms import (
    Compose,
    MapTransform,
    RandAdjustContrastd,
    RandAffined,
    RandBiasFieldd,
    RandFlipd,
    RandGaussianNoised,
    RandomizableTransform,
    RandScaleIntensityd,
)
from torch.nn import functional

from msklabel.sections import Augment

_BOTH = ["image", "labels"]
_MIRRORED = 0.5
_KNOT_VOXELS = 16


class RandDeformd(RandomizableTransform, MapTransform):
    """Bend crops in the plane of their first two axes, smoothly: a random shift every 16 voxels, splines in between.

    MONAI's elastic transforms smooth along all axes by as many voxels, which moves thick slices through each other.

    Args:
        keys: Of tensors (C, *space); ``labels`` takes the nearest voxel.
        prob: Share of the crops that are bent.
        sd_voxels: Standard deviation of the shift at a knot, along each of the two axes.
    """

    def __init__(self, keys: list[str], prob: float, sd_voxels: float) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.sd_voxels = sd_voxels
        self._warps = {key: Warp("nearest" if key == "labels" else "bilinear", "border") for key in keys}

    def __call__(self, data: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Bend all keys by the same field."""
        result = dict(data)
        self.randomize(None)
        if self._do_transform:
            field = self._field(data["image"].shape[1:])
            for key, warp in self._warps.items():
                result[key] = warp(data[key][None], field)[0]
        return result

    def _field(self, shape: torch.Size) -> torch.Tensor:
        """Shift of each voxel, voxels, shape (1, axes, *shape); none along a third axis, and the same all along it."""
        knots = [max(2, round(size / _KNOT_VOXELS) + 1) for size in shape[:2]]
        shifts = torch.from_numpy(self.R.normal(0, self.sd_voxels, (1, 2, *knots))).float()
        smooth = functional.interpolate(shifts, shape[:2], mode="bicubic", align_corners=True)
        if len(shape) == 2:
            return smooth
        return functional.pad(smooth, (0, 0, 0, 0, 0, 1))[..., None].repeat(1, 1, 1, 1, shape[2])


def build_augmentation(augment: Augment, dimensions: int, seed: int) -> Compose:
    """Build the transform of dictionaries with ``image`` (C, *space) and ``labels`` (1, *space).

    Args:
        augment: The recipe.
        dimensions: 2 or 3; rotation is in the plane of the first two axes in both.
        seed: Same seed, same sequence of changes.
    """
    probability = augment.probability
    steps: list[Any] = [RandFlipd(_BOTH, prob=_MIRRORED, spatial_axis=axis) for axis in augment.mirror_axes]
    if augment.rotate_degrees or augment.scale_fraction or augment.shift_voxels:
        angle, shift = radians(augment.rotate_degrees), augment.shift_voxels
        steps.append(
            RandAffined(
                _BOTH,
                prob=probability,
                rotate_range=[angle] if dimensions == 2 else [0.0, 0.0, angle],
                translate_range=[shift, shift, 0][:dimensions],
                scale_range=[augment.scale_fraction] * dimensions,
                mode=("bilinear", "nearest"),
                padding_mode="border",
            )
        )
    if augment.deform_voxels:
        steps.append(RandDeformd(_BOTH, probability, augment.deform_voxels))
    if augment.shading:
        steps.append(RandBiasFieldd("image", coeff_range=(-augment.shading, augment.shading), prob=probability))
    if augment.gamma_fraction:
        gamma = (1 - augment.gamma_fraction, 1 / (1 - augment.gamma_fraction))
        steps.append(RandAdjustContrastd("image", prob=probability, gamma=gamma))
    if augment.contrast_fraction:
        steps.append(RandScaleIntensityd("image", factors=augment.contrast_fraction, prob=probability))
    if augment.noise_sd:
        steps.append(RandGaussianNoised("image", prob=probability, std=augment.noise_sd))
    return Compose(steps).set_random_state(seed)
