"""A slice of a scan with the uncertainty of its prediction laid over it."""

from __future__ import annotations

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Picture

from msklabel.choose.reduce import probabilities_of
from msklabel.choose.scores import entropy
from msklabel.errors import UserError
from msklabel.imaging.scan import Scan
from msklabel.pipeline.preprocess import Prepared
from msklabel.predict.engine import Engine

_SIDE = 512  # longer side of the picture, at least
_OPACITY = 0.65


def uncertainty_map(engine: Engine, scan: Scan) -> tuple[Prepared, NDArray[np.float32]]:
    """Entropy of each voxel of the working crop, 0 to 1; shape (X, Y, Z)."""
    prepared = engine.preprocess(scan)
    scores = engine.scores(prepared)
    values = torch.empty(scores.shape[1:])
    for x in range(scores.shape[1]):
        values[x] = entropy(probabilities_of(scores[:, x])).cpu()
    return prepared, values.numpy()


def heatmap_png(engine: Engine, scan: Scan, native_slice: int = -1) -> bytes:
    """Draw one axial slice, seen as radiologists do: the patient's right on the left, anterior on top.

    Args:
        engine: Predicts.
        scan: The scan.
        native_slice: Index along the scan's own axis closest to head-foot; -1 takes the most uncertain slice.

    Raises:
        UserError: If there is no such slice.
    """
    prepared, values = uncertainty_map(engine, scan)
    grid = prepared.grid
    depth, crop = grid.oriented_shape[2], grid.crop[2]
    if not -1 <= native_slice < depth:
        raise UserError(f"slice {native_slice}: this scan has slices 0 to {depth - 1}")
    if native_slice < 0:
        place = int(values.sum(axis=(0, 1)).argmax())
    else:
        index = depth - 1 - native_slice if grid.flipped[2] else native_slice
        place = int(np.clip(grid.along[2].back().edge(index + 0.5) - crop.start, 0, values.shape[2] - 1))
    picture = overlay(prepared.image[0, :, :, place].numpy(), values[:, :, place])
    size_mm = np.multiply(grid.steps_mm(scan.spacing_mm)[:2], picture.shape[1::-1])
    width, height = (max(1, round(float(mm) * _SIDE / float(size_mm.max()))) for mm in size_mm)
    stream = io.BytesIO()
    Picture.fromarray(picture).resize((width, height), Picture.Resampling.BILINEAR).save(stream, "PNG")
    return stream.getvalue()


def overlay(image: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Grey image (X, Y) under red where it is uncertain (0 to 1); rows from anterior to posterior, shape (Y, X, 3)."""
    low, high = np.percentile(image, [1, 99])
    grey = np.clip((image - low) / max(float(high - low), 1e-6), 0, 1)
    alpha = _OPACITY * np.clip(values, 0, 1)
    colours = np.stack([grey * (1 - alpha) + alpha, grey * (1 - alpha), grey * (1 - alpha)], axis=-1)
    turned: NDArray[np.uint8] = np.ascontiguousarray((colours * 255).astype(np.uint8).transpose(1, 0, 2)[::-1, ::-1])
    return turned
