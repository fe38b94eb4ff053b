"""From a scan to its labels: prepare, predict in windows, restore to the scan's grid, clean up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from msklabel.imaging.scan import LabelMap, Scan
from msklabel.pipeline.postprocess import postprocess
from msklabel.pipeline.preprocess import Prepared, Preprocess
from msklabel.predict.windows import blend_weights, plan_windows, window_slices, with_channels
from msklabel.system import System

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Segmentation:
    """A predicted label map and how long each stage took, in seconds."""

    labels: LabelMap
    seconds: dict[str, float]


class Engine:
    """Predict with one trained network of a system; may be called from several threads, one at a time.

    Args:
        system: The system.
        network: Its network, with weights; moved to the device and set to evaluation.
        device: Where it runs.
    """

    def __init__(self, system: System, network: nn.Module, device: torch.device | str = "cpu") -> None:
        self.system = system
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()
        self.preprocess = Preprocess(system)

    def __call__(self, scan: Scan, progress: Progress | None = None) -> Segmentation:
        """Segment a scan.

        Args:
            scan: The scan, in any orientation and spacing.
            progress: Called with windows done and windows in all.

        Raises:
            UserError: If the scan does not fit the system.
        """
        marks = [time.perf_counter()]
        prepared = self.preprocess(scan)
        marks.append(time.perf_counter())
        scores = self.scores(prepared, progress)
        marks.append(time.perf_counter())
        restored = self.preprocess.restore(scores, prepared.grid)
        labels = postprocess(restored, self.system)
        marks.append(time.perf_counter())
        stages = zip(("prepare", "network", "restore"), np.diff(marks), strict=True)
        return Segmentation(LabelMap(labels, scan.affine), {stage: round(float(s), 4) for stage, s in stages})

    @torch.inference_mode()
    def scores(self, prepared: Prepared, progress: Progress | None = None) -> torch.Tensor:
        """Class scores (classes, X, Y, Z) on the working crop, blended over windows.

        Where there is nothing to see the background has the only score above 0.
        """
        patch = self.system.patch_voxels
        image, shape = padded(prepared.image, patch), prepared.image.shape[1:]
        floor = image.amin(dim=(1, 2, 3), keepdim=True)
        occupied = (image > floor).any(0)
        starts = plan_windows(image.shape[1:], patch, self.system.predict.overlap, occupied)  # type: ignore[arg-type]
        weights = blend_weights(patch, self.system.predict.blend).to(self.device)
        image = image.to(self.device)
        total = torch.zeros((self.system.classes, *image.shape[1:]), device=self.device)
        norm = torch.zeros(image.shape[1:], device=self.device)
        batch = self.system.predict.batch
        for first in range(0, len(starts), batch):
            places = [window_slices(start, patch) for start in starts[first : first + batch]]
            scores = self._forward(torch.stack([image[with_channels(place)] for place in places]))
            for place, window in zip(places, scores, strict=True):
                total[with_channels(place)] += window * weights
                norm[place] += weights
            if progress:
                progress(min(first + batch, len(starts)), len(starts))
        unseen = norm == 0
        total /= torch.where(unseen, 1, norm)
        total[0][unseen] = 1
        x, y, z = shape
        return total[:, :x, :y, :z]

    def _forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Scores in float32 of windows (B, C, *patch); 2D networks get (B, C, X, Y)."""
        flat = self.system.dimensions == 2
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            scores = self.network(windows[..., 0] if flat else windows)
        return (scores[..., None] if flat else scores).float()


def padded(image: torch.Tensor, patch_voxels: Sequence[int]) -> torch.Tensor:
    """Pad (C, X, Y, Z) at the far ends to at least a patch, with each channel's lowest value."""
    missing = [max(0, patch - n) for n, patch in zip(image.shape[1:], patch_voxels, strict=True)]
    if not any(missing):
        return image
    floor = image.amin(dim=(1, 2, 3), keepdim=True)
    return functional.pad(image - floor, [0, missing[2], 0, missing[1], 0, missing[0]]) + floor


def dice(predicted: NDArray[np.uint8], truth: NDArray[np.uint8], index: int) -> float:
    """Dice overlap of one label, 2|A and B| / (|A| + |B|); NaN where neither has it."""
    a, b = predicted == index, truth == index
    size = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / size if size else float("nan")
