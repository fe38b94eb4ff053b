"""What a scan looks like, without any training: pooled intensities, their distribution and edge directions."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.feature import hog

from msklabel.pipeline.preprocess import Prepared

_POOLED = (6, 6, 4)
_SIDE = 64
_QUANTILES = 16


def image_features(prepared: Prepared) -> NDArray[np.float16]:
    """Describe a prepared scan by a few hundred numbers.

    Args:
        prepared: On its working crop, normalised.

    Returns:
        Of the first channel: mean intensities of 6 x 6 x 4 blocks, 16 quantiles, and histograms of oriented gradients
        (Dalal & Triggs 2005) of three slices.
    """
    image = prepared.image[:1]
    blocks = torch.nn.functional.adaptive_avg_pool3d(image[None], _POOLED).flatten().numpy()
    sample = image.flatten()[:: max(1, image.numel() // 65536)].numpy()
    quantiles = np.quantile(sample, np.linspace(0.02, 0.98, _QUANTILES))
    depth = image.shape[-1]
    edges = [_edges(image[0, :, :, int(depth * share)]) for share in (0.25, 0.5, 0.75)]
    return np.concatenate([blocks, quantiles, *edges]).astype(np.float16)


def _edges(plane: torch.Tensor) -> NDArray[np.float64]:
    small = torch.nn.functional.interpolate(plane[None, None], (_SIDE, _SIDE), mode="bilinear", antialias=True)[0, 0]
    cells = (_SIDE // 4, _SIDE // 4)
    found: NDArray[np.float64] = hog(small.numpy(), orientations=6, pixels_per_cell=cells, cells_per_block=(2, 2))
    return found
