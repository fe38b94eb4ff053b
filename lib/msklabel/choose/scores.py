"""How uncertain a prediction is: pure functions of class probabilities, one unit for 2D and 3D.

Probabilities have shape (members, classes, *space), class 0 the background. A voxel's entropy is divided by the log of
the number of classes, so that 0 is certain and 1 knows nothing. A class's value is the mean over the voxels that may be
of the class, each weighted by its probability: what lies around a structure, and how large it is, does not count. A
scan's value is the mean over its classes without the background; NaN where no class can be judged.
"""

from __future__ import annotations

import itertools
import math

import torch

_LEAST_VOXELS = 0.5  # a class with less expected volume is not there


def entropy(probabilities: torch.Tensor) -> torch.Tensor:
    """Entropy of each voxel as a share of the largest there can be.

    Args:
        probabilities: Shape (classes, *space).

    Returns:
        Shape (*space), 0 to 1.
    """
    return torch.special.entr(probabilities).sum(0) / math.log(len(probabilities))


def class_entropy(probabilities: torch.Tensor) -> torch.Tensor:
    """Predictive entropy H[mean over members] of each class but the background; shape (classes - 1,)."""
    mean = probabilities.mean(0)
    return _by_class(entropy(mean), mean)


def class_information(probabilities: torch.Tensor) -> torch.Tensor:
    """Mutual information of label and member, H[mean] - mean H (BALD, Houlsby et al. 2011); shape (classes - 1,)."""
    mean = probabilities.mean(0)
    own = torch.stack([entropy(member) for member in probabilities]).mean(0)
    return _by_class((entropy(mean) - own).clamp_min(0), mean)


def class_agreement(probabilities: torch.Tensor) -> torch.Tensor:
    """Mean Dice between the label maps of all pairs of members, for each class but the background.

    Predicts the Dice with the truth (Kahl et al. 2024, arXiv 2406.03323). One member alone is compared with itself:
    see :func:`class_expected_dice`. NaN for a class that no member finds.
    """
    if len(probabilities) == 1:
        return class_expected_dice(probabilities)
    classes = probabilities.shape[1]
    maps = probabilities.argmax(1)
    pairs = [pair_dice(a, b, classes) for a, b in itertools.combinations(maps, 2)]
    return torch.stack(pairs).nanmean(0)


def class_expected_dice(probabilities: torch.Tensor) -> torch.Tensor:
    """Dice that the label map can expect if the probabilities were right, 2 sum(p over the map) / (map + sum(p))."""
    mean = probabilities.mean(0).flatten(1)
    chosen = torch.nn.functional.one_hot(mean.argmax(0), len(mean)).T
    both, size, expected = (mean * chosen).sum(1), chosen.sum(1), mean.sum(1)
    return torch.where(size > 0, 2 * both / (size + expected), torch.nan)[1:]


def pair_dice(a: torch.Tensor, b: torch.Tensor, classes: int) -> torch.Tensor:
    """Dice of two label maps for each class but the background; NaN where neither has it."""
    joint = torch.bincount((a.flatten().long() * classes + b.flatten()), minlength=classes**2).view(classes, classes)
    sizes = joint.sum(0) + joint.sum(1)
    return torch.where(sizes > 0, 2 * joint.diagonal() / sizes, torch.nan)[1:]


def predictive_entropy(probabilities: torch.Tensor) -> float:
    """Class-balanced predictive entropy of a scan, 0 to 1."""
    return mean_over_classes(class_entropy(probabilities))


def bald(probabilities: torch.Tensor) -> float:
    """Class-balanced mutual information of a scan; 0 with one member."""
    return mean_over_classes(class_information(probabilities))


def predicted_dice(probabilities: torch.Tensor) -> float:
    """Dice that the prediction can expect, 0 to 1: the lower, the likelier it failed."""
    return mean_over_classes(class_agreement(probabilities))


def mean_over_classes(values: torch.Tensor) -> float:
    """Mean of the classes that could be judged; NaN without any."""
    return float(values.nanmean())


def _by_class(voxel_values: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    weights = mean[1:].flatten(1)
    expected = weights.sum(1)
    return torch.where(expected >= _LEAST_VOXELS, weights @ voxel_values.flatten() / expected, torch.nan)
