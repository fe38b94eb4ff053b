"""From a scan to its labels: prepare, predict in windows, restore to the scan's grid, clean up."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from msklabel.imaging.scan import LabelMap, Scan
from msklabel.pipeline.postprocess import postprocess
from msklabel.pipeline.preprocess import Prepared, Preprocess
from msklabel.predict.progress import Progress, report
from msklabel.predict.windows import blend_weights, plan_windows, window_slices, with_channels
from msklabel.system import System

_SLICES_AT_ONCE = 16
# Sees the scores (classes, X, Y, Z) of each network on the working crop, before they are combined.
Watch = Callable[[Prepared, torch.Tensor], None]


@dataclass(frozen=True)
class Segmentation:
    """A predicted label map.

    Attributes:
        seconds: How long each stage took.
        facts: What was measured on the way, for the client; ``warnings`` are sentences.
    """

    labels: LabelMap
    seconds: dict[str, float]
    facts: dict[str, Any] = field(default_factory=dict)


class Engine:
    """Predict with the trained networks of a system; may be called from several threads, one at a time.

    Args:
        system: The system.
        networks: Its network with weights, or the members of an ensemble; moved to the device and set to evaluation.
        device: Where they run.
    """

    def __init__(
        self, system: System, networks: nn.Module | Sequence[nn.Module], device: torch.device | str = "cpu"
    ) -> None:
        self.system = system
        self.device = torch.device(device)
        members = [networks] if isinstance(networks, nn.Module) else list(networks)
        self.networks = [network.to(self.device).eval() for network in members]
        self.preprocess = Preprocess(system)

    def __call__(self, scan: Scan, progress: Progress | None = None, watch: Watch | None = None) -> Segmentation:
        """Segment a scan.

        Args:
            scan: The scan, in any orientation and spacing.
            progress: Called with windows done and windows in all; by default whoever asked for it, see
                :mod:`msklabel.predict.progress`.
            watch: Called with the scores of each network.

        Raises:
            UserError: If the scan does not fit the system.
        """
        marks = [time.perf_counter()]
        prepared = self.preprocess(scan)
        marks.append(time.perf_counter())
        scores = self.scores(prepared, progress or report(), watch)
        marks.append(time.perf_counter())
        grid = prepared.grid
        restored = self.preprocess.restore(scores, grid)
        labels = grid.deorient(postprocess(restored, self.system, _native_plane(prepared)))
        marks.append(time.perf_counter())
        stages = zip(("prepare", "network", "restore"), np.diff(marks), strict=True)
        return Segmentation(LabelMap(labels, scan.affine), {stage: round(float(s), 4) for stage, s in stages})

    @torch.inference_mode()
    def scores(self, prepared: Prepared, progress: Progress | None = None, watch: Watch | None = None) -> torch.Tensor:
        """Class scores (classes, X, Y, Z) on the working crop: blended over windows, combined over members.

        Scores of one network are its outputs; an ensemble's are mean probabilities or, by the system's choice, the
        share of members that vote for a class. Where there is nothing to see, only the background scores above 0.
        """
        parts = prepared.parts(prepared.image)
        plan = _Plan(self.system, [padded(part, self.system.patch_voxels) for part in parts], self.device)
        total: list[torch.Tensor] = []
        for member, network in enumerate(self.networks):
            steps = _shifted(progress, member, len(self.networks))
            blended = self._blended(network, plan, steps)
            if watch:
                watch(prepared, prepared.whole([_cropped(part, parts[0]) for part in blended]))
            scores = [self._combined(part) for part in blended]
            if not total:
                total = scores
                continue
            for part, added in zip(total, scores, strict=True):
                part += added
        return prepared.whole([_cropped(part, parts[0]) for part in total])

    def _combined(self, scores: torch.Tensor) -> torch.Tensor:
        """What one member adds to the sum over members; overwrites the scores, which may be gigabytes."""
        if len(self.networks) == 1:
            return scores
        for part in scores.split(_SLICES_AT_ONCE, dim=-1):
            if self.system.predict.ensemble == "mean":
                part.copy_(part.softmax(0) / len(self.networks))
            else:
                winner = part.argmax(0, keepdim=True)
                part.zero_().scatter_(0, winner, 1 / len(self.networks))
        return scores

    def _blended(self, network: nn.Module, plan: _Plan, progress: Progress | None) -> list[torch.Tensor]:
        """Scores of one network on every part, (classes, X, Y, Z) each."""
        total = [torch.zeros((self.system.classes, *image.shape[1:]), device=self.device) for image in plan.images]
        norm = [torch.zeros(image.shape[1:], device=self.device) for image in plan.images]
        batch = self.system.predict.batch
        for first in range(0, len(plan.windows), batch):
            windows = plan.windows[first : first + batch]
            crops = torch.stack([plan.images[part][with_channels(place)] for part, place in windows])
            for (part, place), scores in zip(windows, self._mirrored(network, crops), strict=True):
                total[part][with_channels(place)] += scores * plan.weights
                norm[part][place] += plan.weights
            if progress:
                progress(min(first + batch, len(plan.windows)), len(plan.windows))
        for scores, weight in zip(total, norm, strict=True):
            unseen = weight == 0
            scores /= torch.where(unseen, 1, weight)
            scores[0][unseen] = 1
        return total

    def _mirrored(self, network: nn.Module, windows: torch.Tensor) -> torch.Tensor:
        """Scores of windows (B, C, *patch), averaged over all combinations of the system's mirror axes."""
        axes = self.system.predict.mirror_axes
        subsets = [subset for n in range(len(axes) + 1) for subset in itertools.combinations(axes, n)]
        total = torch.zeros(())
        for subset in subsets:
            flips = [axis + 2 for axis in subset]
            total = self._forward(network, windows.flip(flips)).flip(flips) + total.to(windows.device)
        return total / len(subsets)

    def _forward(self, network: nn.Module, windows: torch.Tensor) -> torch.Tensor:
        """Scores in float32 of windows (B, C, *patch); 2D networks get (B, C, X, Y)."""
        flat = self.system.dimensions == 2
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            scores = network(windows[..., 0] if flat else windows)
        return (scores[..., None] if flat else scores).float()


class _Plan:
    """The windows of all parts of a scan, in one list so that batches may hold several parts."""

    def __init__(self, system: System, images: Sequence[torch.Tensor], device: torch.device) -> None:
        patch = system.patch_voxels
        self.images = [image.to(device) for image in images]
        self.weights = blend_weights(patch, system.predict.blend).to(device)
        self.windows: list[tuple[int, tuple[slice, slice, slice]]] = []
        for part, image in enumerate(images):
            occupied = (image > image.amin(dim=(1, 2, 3), keepdim=True)).any(0)
            x, y, z = image.shape[1:]
            starts = plan_windows((x, y, z), patch, system.predict.overlap, occupied)
            self.windows += [(part, window_slices(start, patch)) for start in starts]


def _cropped(padded_scores: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    x, y, z = part.shape[1:]
    return padded_scores[:, :x, :y, :z]


def _shifted(progress: Progress | None, member: int, members: int) -> Progress | None:
    """Progress of one member as a part of all."""
    if progress is None:
        return None
    return lambda done, windows: progress(member * windows + done, members * windows)


def _native_plane(prepared: Prepared) -> int | None:
    """First voxel of the right half on the scan's own resolution, along the first working axis."""
    if prepared.sides is None:
        return None
    grid = prepared.grid
    return round((grid.crop[0].start + prepared.sides.plane) * grid.oriented_shape[0] / grid.working_shape[0])


def padded(image: torch.Tensor, patch_voxels: Sequence[int]) -> torch.Tensor:
    """Pad (C, X, Y, Z) at the far ends to at least a patch: with each channel's lowest value, labels (uint8) with 0."""
    missing = [max(0, patch - n) for n, patch in zip(image.shape[1:], patch_voxels, strict=True)]
    if not any(missing):
        return image
    margins = [0, missing[2], 0, missing[1], 0, missing[0]]
    if image.dtype == torch.uint8:
        return functional.pad(image, margins)
    floor = image.amin(dim=(1, 2, 3), keepdim=True)
    return functional.pad(image - floor, margins) + floor


def dice(predicted: NDArray[np.uint8], truth: NDArray[np.uint8], index: int) -> float:
    """Dice overlap of one label, 2|A and B| / (|A| + |B|); NaN where neither has it."""
    a, b = predicted == index, truth == index
    size = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / size if size else float("nan")
