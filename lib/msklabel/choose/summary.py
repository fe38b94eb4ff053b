"""What is kept of a prediction to choose by: at most 64 KB a scan, whatever the scan's size."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, fields
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from msklabel.errors import UserError
from msklabel.pipeline.resample import AxisMap

MOST_BYTES = 64 * 1024
IMAGE_ONLY = "image"  # stands for the model version where no model was asked
_MOST_PROFILE_VALUES = 12_000  # of each of the two profiles; in two bytes each they leave room for the rest
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Slices:
    """How a working crop's slices lie in the scan as stored.

    Attributes:
        axis: Axis of the scan as stored that the slices count along.
        flipped: Whether that axis runs against the working one.
        native: Slices of the scan.
        working: Slices of the whole working grid.
        start: First slice of the crop on the working grid.
        step: Slices of the crop that one entry of a profile stands for.
        from_first: Slices of the scan from one working slice to the next, where both first ones have the same middle;
            None where both grids cover the same length.
    """

    axis: int
    flipped: bool
    native: int
    working: int
    start: int = 0
    step: int = 1
    from_first: float | None = None

    def to_native(self, entry: NDArray[np.intp]) -> NDArray[np.intp]:
        """Slices of the scan in the middle of entries of a profile."""
        middle = self.start + self.step * (np.asarray(entry) + 0.5)
        index = np.clip(self._along.edge(middle).astype(int), 0, self.native - 1)
        return self.native - 1 - index if self.flipped else index

    def to_entry(self, native: NDArray[np.intp], entries: int) -> NDArray[np.intp]:
        """Entries of a profile nearest to slices of the scan."""
        return np.clip(self._at(native).astype(int), 0, entries - 1)

    def inside(self, native: NDArray[np.intp], entries: int) -> NDArray[np.bool_]:
        """Whether the middle of each slice of the scan is within a profile, or that of an entry within the slice."""
        at = self._at(native)
        met: NDArray[np.bool_] = np.isin(native, self.to_native(np.arange(entries)))
        return met | ((at >= 0) & (at < entries))

    def _at(self, native: NDArray[np.intp]) -> NDArray[np.float64]:
        """Where the middles of slices of the scan lie along a profile; 0.5 is the middle of its first entry."""
        index = np.asarray(native)
        index = self.native - 1 - index if self.flipped else index
        working = np.minimum(self._along.back().edge(index + 0.5), self.working - 0.5)  # beyond is as the last slice
        return (working - self.start) / self.step

    @property
    def _along(self) -> AxisMap:
        return AxisMap(self.native, self.working, self.from_first)


@dataclass(frozen=True)
class Summary:
    """One prediction of one system on one scan; arrays run over its labels without the background, in order of index.

    Attributes:
        model_version: The version that predicted.
        members: Opinions that were asked, such as ``flip 0``.
        uncertain_cm2: Shape (labels, entries): in each slice the integral of entropy (0 to 1) x probability, the mean
            over the slice times its area; the same unit in 2D and 3D, and what is background adds nothing.
        area_cm2: Shape (labels, entries): the integral of the probability.
        volume_cm3: Shape (sides, labels): predicted volume (of a radiograph the area, cm2); left and right, or all.
        agreement: Shape (pairs, labels): Dice between the members' label maps.
        expected_dice: Shape (labels,): Dice that the mean prediction can expect of itself.
        information: Shape (labels,): mutual information of label and member, 0 to 1; NaN with one member.
        embedding: Mean of the network's deepest features.
        slices: Where the entries lie in the scan.
        finite: Whether all that the network gave were numbers.
    """

    model_version: str
    members: tuple[str, ...]
    uncertain_cm2: Floats
    area_cm2: Floats
    volume_cm3: Floats
    agreement: Floats
    expected_dice: Floats
    information: Floats
    embedding: Floats
    slices: Slices
    finite: bool = True

    @property
    def class_entropy(self) -> Floats:
        """Mean entropy over each label's expected volume, 0 to 1; NaN for a label that is nowhere predicted."""
        uncertain, area = (profile.astype(np.float64).sum(axis=1) for profile in (self.uncertain_cm2, self.area_cm2))
        found = (self.volume_cm3.sum(axis=0) > 0) & (area > 0)
        return np.where(found, uncertain / np.where(area > 0, area, 1), np.nan)

    @property
    def class_dice(self) -> Floats:
        """Predicted Dice of each label: agreement of the members, with one member what it expects of itself."""
        if not len(self.agreement):
            return self.expected_dice.astype(np.float64)
        seen = ~np.isnan(self.agreement).all(axis=0)
        mean = np.full(self.agreement.shape[1], np.nan)
        mean[seen] = np.nanmean(self.agreement[:, seen].astype(np.float64), axis=0)
        return mean

    @property
    def values(self) -> dict[str, float]:
        """The scan's scores by name, class-balanced; a score that cannot be given is left out."""
        named = {
            "uncertain": self.class_entropy,
            "predicted_dice": self.class_dice,
            "information": self.information.astype(np.float64),
        }
        means = {name: float(np.nanmean(v)) for name, v in named.items() if not np.isnan(v).all()}
        return {**means, "finite": 1.0} if self.finite else {"finite": 0.0}


def to_bytes(summary: Summary) -> bytes:
    """Serialise as compressed safetensors; half precision except for volumes."""
    arrays, facts = {}, {}
    for field in fields(summary):
        value = getattr(summary, field.name)
        if isinstance(value, np.ndarray):
            kind = np.float32 if field.name == "volume_cm3" else np.float16
            arrays[field.name] = np.ascontiguousarray(value, kind)
        else:
            facts[field.name] = vars(value) if isinstance(value, Slices) else value
    return zlib.compress(save({**arrays, "facts": np.frombuffer(json.dumps(facts).encode(), np.uint8)}))


def from_bytes(data: bytes) -> Summary:
    """Inverse of :func:`to_bytes`.

    Raises:
        UserError: If it is none of ours.
    """
    try:
        arrays: dict[str, Any] = load(zlib.decompress(data))
        facts = json.loads(arrays.pop("facts").tobytes())
        facts |= {"members": tuple(facts["members"]), "slices": Slices(**facts["slices"])}
        return Summary(**facts, **arrays)
    except (ValueError, KeyError, TypeError, zlib.error, SafetensorError) as error:
        raise UserError("a stored summary cannot be read; score the scan again") from error


def entry_step(labels: int, slices: int) -> int:
    """How many slices one entry of a profile must stand for, so that a summary stays small."""
    return max(1, -(-labels * slices // _MOST_PROFILE_VALUES))


def pooled(profile: Floats, step: int) -> Floats:
    """Sum entries of a profile (labels, slices) in steps; shape (labels, ceil(slices / step))."""
    missing = -profile.shape[1] % step
    padded = np.pad(profile, ((0, 0), (0, missing)))
    return padded.reshape(len(profile), prod(padded.shape[1:]) // step, step).sum(axis=2)
