"""Random changes of training crops, built from a System's recipe out of MONAI's transforms."""

from __future__ import annotations

from math import radians
from typing import Any

from monai.transforms import Compose, RandAffined, RandFlipd, RandGaussianNoised, RandScaleIntensityd

from msklabel.sections import Augment

_PROBABILITY = 0.5


def build_augmentation(augment: Augment, dimensions: int, seed: int) -> Compose:
    """Build the transform of dictionaries with ``image`` (C, *space) and ``labels`` (1, *space).

    Args:
        augment: The recipe.
        dimensions: 2 or 3; rotation is in the plane of the first two axes in both.
        seed: Same seed, same sequence of changes.
    """
    both = ["image", "labels"]
    steps: list[Any] = [RandFlipd(both, prob=_PROBABILITY, spatial_axis=axis) for axis in augment.mirror_axes]
    if augment.rotate_degrees or augment.scale_fraction:
        angle = radians(augment.rotate_degrees)
        steps.append(
            RandAffined(
                both,
                prob=_PROBABILITY,
                rotate_range=[angle] if dimensions == 2 else [0.0, 0.0, angle],
                scale_range=[augment.scale_fraction] * dimensions,
                mode=("bilinear", "nearest"),
                padding_mode="border",
            )
        )
    if augment.contrast_fraction:
        steps.append(RandScaleIntensityd("image", factors=augment.contrast_fraction, prob=_PROBABILITY))
    if augment.noise_sd:
        steps.append(RandGaussianNoised("image", prob=_PROBABILITY, std=augment.noise_sd))
    return Compose(steps).set_random_state(seed)
