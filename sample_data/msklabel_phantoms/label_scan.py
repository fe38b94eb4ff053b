"""Lifelike CT and Dixon scans of a real label map, at any size: for benchmarks, not for claims about patients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from msklabel_phantoms.acquisition import band_limited_noise, blur
from msklabel_phantoms.label_anatomy import Anatomy
from msklabel_phantoms.label_tissues import Person, Slab, draw_person, slab_of
from msklabel_phantoms.phantom import Fact
from msklabel_phantoms.sections import Grid
from msklabel_phantoms.thigh_ct import AIR_HU, FAT_HU, MUSCLE_HU
from msklabel_phantoms.thigh_dixon import WATER_FAT, stored
from msklabel_phantoms.thigh_scan import paint

Array = npt.NDArray[np.float32]
CT, DIXON = "ct", "dixon"
DIXON_CHANNELS = ("out_of_phase", "in_phase", "water", "fat")
_HU = {"skin": 20.0, "fat": FAT_HU, "septum": -40.0, "organ": 35.0, "gas": -850.0, "muscle": MUSCLE_HU,
       "cortex": 1050.0}  # fmt: skip
_SPONGY_HU, _MARROW_HU = 210.0, -45.0
_SEPTUM, _SPONGY = (500.0, 900.0), (420.0, 1150.0)  # water and fat
_BLUR_MM = 1.6
_NOISE_CUTOFF_PER_MM = 0.18
_SLAB_VOXELS = 3_000_000
_AROUND_MM = 25.0  # in-plane, beyond the label map, where nothing else is asked for


@dataclass(frozen=True)
class LabelScan:
    """A scan of a label map.

    Attributes:
        image: HU, or the channels of ``DIXON_CHANNELS`` in stored units; whole numbers, int16, shape (C, X, Y, Z).
        labels: Values of the label map at each voxel's centre, int32, shape (X, Y, Z).
        affine: Voxel index to RAS+ mm, shape (4, 4).
        facts: What was put in: noise, and for each value the share of fat in percent as ``fat_percent``.
    """

    image: npt.NDArray[np.int16]
    labels: npt.NDArray[np.int32]
    affine: npt.NDArray[np.float64]
    facts: dict[str, Fact | dict[int, float]]


def synthesize(
    anatomy: Anatomy,
    modality: str,
    *,
    seed: int = 0,
    shape: Sequence[int] | None = None,
    spacing_mm: Sequence[float] | None = None,
    fat_percent: float = 8.0,
) -> LabelScan:
    """Make a scan of an anatomy; the same arguments give the same scan.

    Args:
        anatomy: Of a label map.
        modality: ``ct`` or ``dixon``.
        seed: Who it is and what noise there is.
        shape: Voxels along right, anterior, superior; by default as many as cover the label map.
        spacing_mm: Voxel size; by default 1.5 mm, or with a shape what covers the label map, square in-plane.
        fat_percent: Fat's share of muscle, the planes between muscles not counted.

    Raises:
        ValueError: There is no such modality, or a number is impossible.
    """
    if modality not in (CT, DIXON):
        raise ValueError(f"modality: expected {CT} or {DIXON}, got {modality!r}")
    if not 0.5 <= fat_percent <= 95:
        raise ValueError(f"fat_percent: expected 0.5 to 95, got {fat_percent:g}")
    size, step = _view(anatomy, shape, spacing_mm)
    middle = np.add(anatomy.low_mm, anatomy.high_mm) / 2
    affine = np.diag([*step, 1.0])
    affine[:3, 3] = middle - (np.array(size) - 1) / 2 * np.array(step)
    rng = np.random.default_rng([seed, 5])
    person = draw_person(rng, anatomy, fat_percent / 100)
    maker = _ct if modality == CT else _dixon
    image, labels, facts = maker(rng, anatomy, person, size, affine)
    return LabelScan(image, labels, affine, {"modality": modality, "seed": seed, **facts})


def _view(
    anatomy: Anatomy, shape: Sequence[int] | None, spacing_mm: Sequence[float] | None
) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    extent = np.array(anatomy.high_mm) - anatomy.low_mm
    extent[:2] += 2 * _AROUND_MM
    for name, given in (("shape", shape), ("spacing", spacing_mm)):
        if given is not None and (len(given) != 3 or min(given) <= 0):
            raise ValueError(f"{name}: expected three positive numbers, got {tuple(given)}")
    if shape is None:
        step = np.array(spacing_mm if spacing_mm is not None else (1.5, 1.5, 1.5), float)
        size = np.maximum(np.ceil(extent / step), 1).astype(int)
    else:
        size = np.array(shape, int)
        square = max(extent[0] / size[0], extent[1] / size[1])
        step = np.array(spacing_mm if spacing_mm is not None else (square, square, extent[2] / size[2]), float)
    x, y, z = (int(n) for n in size)
    return (x, y, z), (float(step[0]), float(step[1]), float(step[2]))


def _slabs(
    anatomy: Anatomy, person: Person, size: Sequence[int], affine: npt.NDArray[np.float64]
) -> Iterator[tuple[slice, Grid, Slab]]:
    step = np.diag(affine)[:3]
    x, y, z = ((affine[axis, 3] + step[axis] * np.arange(size[axis])).astype(np.float32) for axis in range(3))
    thickness = max(1, _SLAB_VOXELS // (size[0] * size[1]))
    for start in range(0, size[2], thickness):
        here = slice(start, min(start + thickness, size[2]))
        grid = Grid(x, y, z[here])
        yield here, grid, slab_of(anatomy, person, grid, float(step[:2].mean()))


def _ct(
    rng: np.random.Generator, anatomy: Anatomy, person: Person, size: tuple[int, int, int], affine: npt.NDArray
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int32], dict]:
    step = tuple(np.diag(affine)[:3].tolist())
    noise_sd_hu = float(rng.uniform(6, 14))
    image, labels = np.empty((1, *size), np.int16), np.empty(size, np.int32)
    fat = _Means()
    back_mm = anatomy.low_mm[1] - person.subcutaneous_mm - 6
    for here, grid, slab in _slabs(anatomy, person, size, affine):
        texture = person.fields["texture"].on_grid(grid.x_mm, grid.y_mm, grid.z_mm)
        trabeculae = person.fields["trabeculae"].on_grid(grid.x_mm, grid.y_mm, grid.z_mm)
        marrow = _MARROW_HU + (_SPONGY_HU - _MARROW_HU) * slab.spongy + (20 + 40 * slab.spongy) * trabeculae
        values: dict[str, float | Array] = {**_HU, "muscle": MUSCLE_HU + 3 * texture, "marrow": marrow}
        values["fat"] = FAT_HU + 3 * texture
        canvas = np.full(grid.shape, AIR_HU, np.float32)
        centre = (anatomy.low_mm[0] + anatomy.high_mm[0]) / 2
        table_mm = grid.y_mm[None, :, None] - back_mm - np.square((grid.x_mm - centre) / 45)[:, None, None]
        np.copyto(canvas, np.float32(-120), where=np.abs(table_mm) < max(1.5, step[1] / 2))
        ideal = paint(canvas, slab.layers, values)
        labels[..., here] = slab.labels
        # Between the density of fat and of muscle the share of fat is linear.
        share = np.clip((MUSCLE_HU - ideal) / (MUSCLE_HU - FAT_HU), 0, 1)
        fat.add(slab.labels, np.asarray(100 * share, np.float32))
        noise = band_limited_noise(rng, ideal.shape, step, _NOISE_CUTOFF_PER_MM)
        # Photons that crossed the most tissue are the fewest.
        across = np.square((grid.x_mm - centre) / 190)[:, None] + np.square(
            (grid.y_mm - (anatomy.low_mm[1] + anatomy.high_mm[1]) / 2) / 130
        )
        seen = blur(ideal, _BLUR_MM, step) + noise_sd_hu * (0.4 + 0.6 * np.exp(-across))[..., None] * noise
        image[0][..., here] = np.rint(np.clip(seen, -1024, 3071)).astype(np.int16)
    return image, labels, {"noise_sd_hu": round(noise_sd_hu, 1), "fat_percent": fat.of(person)}


def _dixon(
    rng: np.random.Generator, anatomy: Anatomy, person: Person, size: tuple[int, int, int], affine: npt.NDArray
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int32], dict]:
    step = tuple(np.diag(affine)[:3].tolist())
    labels = np.empty(size, np.int32)
    water_fat = np.empty((2, *size), np.float32)
    fat = _Means()
    for here, grid, slab in _slabs(anatomy, person, size, affine):
        texture = 1 + 0.02 * person.fields["texture"].on_grid(grid.x_mm, grid.y_mm, grid.z_mm)
        signals = []
        for channel in range(2):
            values: dict[str, float | Array] = {name: float(pair[channel]) for name, pair in WATER_FAT.items()}
            fatty = values["marrow"]
            values["marrow"] = (fatty + (_SPONGY[channel] - fatty) * slab.spongy) * texture
            values |= {"septum": _SEPTUM[channel], "muscle": values["muscle"] * texture, "fat": values["fat"] * texture}
            signals.append(blur(paint(np.zeros(grid.shape, np.float32), slab.layers, values), 1.2, step))
            water_fat[channel][..., here] = signals[-1]
        labels[..., here] = slab.labels
        fat.add(slab.labels, 100 * signals[1] / np.maximum(signals[0] + signals[1], 1))
    water, lipid = water_fat
    image, noise_sd = stored(rng, (np.abs(water - lipid), water + lipid, water, lipid), step)
    facts = {"noise_sd": round(noise_sd, 1), "fat_percent": fat.of(person)}
    return image.astype(np.int16), labels, facts


class _Means:
    """Mean of something over the voxels of each value."""

    def __init__(self) -> None:
        self._sums: dict[int, float] = {}
        self._counts: dict[int, int] = {}

    def add(self, labels: npt.NDArray[np.int32], what: Array) -> None:
        counts = np.bincount(labels.ravel())
        sums = np.bincount(labels.ravel(), what.ravel())
        for value in np.flatnonzero(counts[1:]) + 1:
            self._sums[int(value)] = self._sums.get(int(value), 0.0) + float(sums[value])
            self._counts[int(value)] = self._counts.get(int(value), 0) + int(counts[value])

    def of(self, person: Person) -> dict[int, float]:
        """Means over the muscles, by value."""
        wanted = sorted(value for value in self._sums if value in person.muscle_logit)
        return {value: round(self._sums[value] / self._counts[value], 2) for value in wanted}
