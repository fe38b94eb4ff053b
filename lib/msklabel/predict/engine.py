"""From a scan to its labels: prepare, predict in windows, restore to the scan's grid, clean up."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from msklabel.imaging.scan import LabelMap, Scan
from msklabel.pipeline.padding import margins, padded
from msklabel.pipeline.postprocess import postprocess
from msklabel.pipeline.preprocess import Prepared, Preprocess
from msklabel.pipeline.restore import Restorer
from msklabel.pipeline.windows import blend_weights, plan_windows, window_slices, with_channels
from msklabel.predict.backends import Forward, Site, eager
from msklabel.predict.blend import Blender
from msklabel.predict.locate import Box, coarse_image, fine_box, labelled_box, widened
from msklabel.predict.progress import Progress, report
from msklabel.system import System

_SLICES_AT_ONCE = 8
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
        forwards: What runs each network, where it is not PyTorch as it is; ``networks`` may then be empty.
    """

    def __init__(
        self,
        system: System,
        networks: nn.Module | Sequence[nn.Module],
        device: torch.device | str = "cpu",
        forwards: Sequence[Forward] = (),
    ) -> None:
        self.system = system
        self.device = torch.device(device)
        members = [networks] if isinstance(networks, nn.Module) else list(networks)
        self.networks = [network.to(self.device).eval() for network in members]
        window = torch.zeros(1, len(system.channels), *system.patch_voxels[: system.dimensions])
        site = Site(self.device, window)
        self.forwards = list(forwards) or [eager(network, site) for network in self.networks]
        self.preprocess = Preprocess(system, self.device)

    def __call__(self, scan: Scan, progress: Progress | None = None, watch: Watch | None = None) -> Segmentation:
        """Segment a scan.

        Scores are reduced to labels as they come, so that those of the whole scan are never held, unless somebody
        watches.

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
        progress = progress or report()
        restorer = Restorer(prepared.grid, whole_slices=self.device.type == "cuda")
        restoring_s = 0.0
        with torch.inference_mode():
            for slab in [self.scores(prepared, progress, watch)] if watch else self._slabs(prepared, progress):
                started = time.perf_counter()
                restorer.add(slab)
                restoring_s += time.perf_counter() - started
        marks.append(time.perf_counter() - restoring_s)
        labels = postprocess(restorer.labels(), self.system, _native_plane(prepared))
        array = prepared.grid.deorient(labels)
        marks.append(time.perf_counter())
        stages = zip(("prepare", "network", "restore"), np.diff(marks), strict=True)
        return Segmentation(LabelMap(array, scan.affine), {stage: round(float(s), 4) for stage, s in stages})

    @torch.inference_mode()
    def scores(self, prepared: Prepared, progress: Progress | None = None, watch: Watch | None = None) -> torch.Tensor:
        """Class scores (classes, X, Y, Z) on the working crop: blended over windows, combined over members.

        Scores of one network are its outputs; an ensemble's are mean probabilities or, by the system's choice, the
        share of members that vote for a class. Where there is nothing to see, only the background scores above 0.
        """
        progress = progress or report()
        plan = _Plan(self.system, prepared, self.device, lambda image: self._where(image, progress))
        total: torch.Tensor | None = None
        for member, forward in enumerate(self.forwards):
            scores = torch.empty((self.system.classes, *prepared.image.shape[1:]), device=self.device)
            start = 0
            for slab in self._blended(forward, plan, _shifted(progress, member, len(self.forwards))):
                scores[..., start : start + slab.shape[-1]] = slab
                start += slab.shape[-1]
            if watch:
                watch(prepared, scores)
            for part in scores.split(_SLICES_AT_ONCE, dim=-1):
                part.copy_(self._combined(part))
            total = scores if total is None else total.add_(scores)
        assert total is not None
        return total

    def _slabs(self, prepared: Prepared, progress: Progress | None) -> Iterator[torch.Tensor]:
        """The same scores, a few slices of the crop at a time; the members take turns."""
        plan = _Plan(self.system, prepared, self.device, lambda image: self._where(image, progress))
        members = len(self.forwards)
        done = [0] * members

        def teller(member: int) -> Progress | None:
            def tell(windows: int, of: int) -> None:
                done[member] = windows
                if progress:
                    progress(sum(done), members * of)

            return tell if progress else None

        blended = [self._blended(forward, plan, teller(member)) for member, forward in enumerate(self.forwards)]
        for slabs in zip(*blended, strict=True):
            total = self._combined(slabs[0])
            for slab in slabs[1:]:
                total += self._combined(slab)
            yield total

    def _combined(self, scores: torch.Tensor) -> torch.Tensor:
        """What one member adds to the sum over members."""
        if len(self.forwards) == 1:
            return scores
        if self.system.predict.ensemble == "mean":
            return scores.softmax(0) / len(self.forwards)
        winner = scores.argmax(0, keepdim=True)
        return torch.zeros_like(scores).scatter_(0, winner, 1 / len(self.forwards))

    def _blended(self, forward: Forward, plan: _Plan, progress: Progress | None) -> Iterator[torch.Tensor]:
        """Scores (classes, X, Y, slices) of one network on the crop, from the first slice to the last."""
        blenders = [Blender(shape, self.system.classes, plan.weights) for shape in plan.part_shapes]
        batch = getattr(forward, "windows_at_once", self.system.predict.batch)
        for first in range(0, len(plan.windows), batch):
            windows = plan.windows[first : first + batch]
            crops = torch.stack([plan.images[part][with_channels(place)] for part, place in windows])
            for (part, place), scores in zip(windows, self._mirrored(forward, crops), strict=True):
                inside = plan.in_part(part, place)
                yield from plan.joined(blenders, inside[2].start)
                blenders[part].add(inside, scores)
            if progress:
                progress(min(first + batch, len(plan.windows)), len(plan.windows))
        yield from plan.joined(blenders, plan.depth)

    def _where(self, image: torch.Tensor, progress: Progress | None) -> Box:
        """The box of an image (C, X, Y, Z) that windows are to cover: all of it, unless the system locates first."""
        locate, patch, predict = self.system.predict.locate, self.system.patch_voxels, self.system.predict
        shape = _shape(image)
        if locate is not None:

            def found(windows: torch.Tensor) -> torch.Tensor:
                if progress:
                    progress(0, 1)
                labels = [self._scored(forward, windows).argmax(1) for forward in self.forwards]
                return torch.stack(labels).any(0)

            coarse = coarse_image(image, locate)
            box = labelled_box(padded(coarse, patch, "spread"), patch, predict.overlap, predict.batch, found)
            if box is not None:
                return widened(fine_box(box, coarse.shape[1:], shape, locate.margin_voxels), shape, patch)
        x, y, z = (slice(0, size) for size in shape)
        return x, y, z

    def _mirrored(self, forward: Forward, windows: torch.Tensor) -> torch.Tensor:
        """Scores of windows (B, C, *patch), averaged over all combinations of the system's mirror axes."""
        axes = self.system.predict.mirror_axes
        subsets = [subset for n in range(len(axes) + 1) for subset in itertools.combinations(axes, n)]
        if len(subsets) == 1:
            return self._scored(forward, windows)
        total = torch.zeros(())
        for subset in subsets:
            flips = [axis + 2 for axis in subset]
            total = self._scored(forward, windows.flip(flips)).flip(flips) + total.to(windows.device)
        return total / len(subsets)

    def _scored(self, forward: Forward, windows: torch.Tensor) -> torch.Tensor:
        """Scores in float32 of windows (B, C, *patch); 2D networks get (B, C, X, Y)."""
        flat = self.system.dimensions == 2
        scores = forward(windows[..., 0] if flat else windows)
        return (scores[..., None] if flat else scores).float()


class _Plan:
    """The windows of all parts of a scan, in one list so that batches may hold several parts, from slice to slice."""

    def __init__(
        self, system: System, prepared: Prepared, device: torch.device, where: Callable[[torch.Tensor], Box]
    ) -> None:
        patch = system.patch_voxels
        parts = prepared.parts(prepared.image)
        self._prepared = prepared
        self.part_shapes = [_shape(part) for part in parts]
        self.images = [padded(part, patch, system.predict.windows).to(device) for part in parts]
        self._margins = [margins(shape, patch, system.predict.windows) for shape in self.part_shapes]
        self.weights = blend_weights(patch, system.predict.blend).to(device)
        self.depth = prepared.image.shape[-1]
        windows: list[tuple[int, tuple[slice, slice, slice]]] = []
        for number, image in enumerate(self.images):
            occupied = (image > image.amin(dim=(1, 2, 3), keepdim=True)).any(0)
            box = where(image)
            x, y, z = (part.start for part in box)
            shape, predict = _shape(image[with_channels(box)]), system.predict
            starts = plan_windows(shape, patch, predict.overlap, occupied[box], predict.windows)
            windows += [(number, window_slices((x + i, y + j, z + k), patch)) for i, j, k in starts]
        self.windows = sorted(windows, key=lambda window: window[1][2].start)

    def in_part(self, part: int, place: tuple[slice, slice, slice]) -> tuple[slice, slice, slice]:
        """A window's place in a part that was not filled up; it may begin before the first voxel."""
        x, y, z = (
            slice(here.start - before, here.stop - before)
            for here, (before, _) in zip(place, self._margins[part], strict=True)
        )
        return x, y, z

    def joined(self, blenders: Sequence[Blender], before: int) -> Iterator[torch.Tensor]:
        """Finished slices of all parts, put together to those of the crop."""
        for slabs in zip(*(blender.finished(before) for blender in blenders), strict=True):
            yield self._prepared.whole(slabs)


def _shape(image: torch.Tensor) -> tuple[int, int, int]:
    x, y, z = image.shape[1:]
    return x, y, z


def _shifted(progress: Progress | None, member: int, members: int) -> Progress | None:
    """Progress of one member as a part of all."""
    if progress is None:
        return None
    return lambda done, windows: progress(member * windows + done, members * windows)


def _native_plane(prepared: Prepared) -> int | None:
    """First voxel of the right half on the scan's own resolution, along the first working axis; None without halves."""
    if prepared.sides is None or len(prepared.sides.widths) < 2:
        return None
    grid = prepared.grid
    return round(grid.along[0].edge(grid.crop[0].start + prepared.sides.plane))


def dice(predicted: NDArray[np.uint8], truth: NDArray[np.uint8], index: int) -> float:
    """Dice overlap of one label, 2|A and B| / (|A| + |B|); NaN where neither has it."""
    a, b = predicted == index, truth == index
    size = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / size if size else float("nan")
