"""A pool with what real pools have: two sites, near-duplicates, a rare pathology and a rare label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from msklabel_phantoms.phantom import Phantom
from msklabel_phantoms.write import generate


@dataclass(frozen=True)
class PoolOptions:
    """How a pool differs from so many independent scans.

    Attributes:
        second_site: Share of patients of a site whose images are darker, smoother and noisier.
        pathology: Share of patients with a lesion in a structure.
        duplicates: Share of patients of whom there is a second scan, nearly the same.
        rare_label: Index of a label that most patients lack; 0 for none.
        rare_share: Share of patients that have it.
    """

    second_site: float = 0.35
    pathology: float = 0.15
    duplicates: float = 0.25
    rare_label: int = 0
    rare_share: float = 0.25


def generate_pool(
    system: str,
    patients: int,
    seed: int,
    options: PoolOptions = PoolOptions(),
    shape: Sequence[int] | None = None,
    spacing_mm: Sequence[float] | None = None,
) -> Iterator[Phantom]:
    """Generate the scans of a pool, patient by patient.

    Args:
        system: Name of the system, a key of ``GENERATORS``.
        patients: How many.
        seed: Which pool.
        options: What it is made of.
        shape: Voxels along x, y, z; None for the generator's own.
        spacing_mm: Voxel size along x, y, z in mm; None for the generator's own.

    Yields:
        Phantoms with the facts ``patient``, ``site``, ``pathology``, ``duplicate`` and ``has_rare_label``.
    """
    for index in range(patients):
        rng = np.random.default_rng([seed, index, 17])
        second, ill, twice, has_rare = rng.random(4) < (
            options.second_site,
            options.pathology,
            options.duplicates,
            options.rare_share,
        )
        phantom = generate(system, seed, index, shape, spacing_mm)
        if options.rare_label and not has_rare:
            phantom = without_label(phantom, options.rare_label)
        if ill:
            phantom = with_lesion(phantom, rng)
        facts = {"patient": f"pool{seed}_{index:03d}", "site": "b" if second else "a", "pathology": bool(ill)}
        facts |= {"duplicate": False, "has_rare_label": bool(options.rare_label and has_rare)}
        phantom = replace(phantom, facts={**phantom.facts, **facts})
        if second:
            phantom = at_second_site(phantom, rng)
        yield phantom
        if twice:
            again = noisy(phantom, rng, 0.01)
            yield replace(again, facts={**phantom.facts, "duplicate": True})


def at_second_site(phantom: Phantom, rng: np.random.Generator) -> Phantom:
    """The same patient by another scanner: less contrast, smoother, noisier."""
    middle = np.float32(np.median(phantom.image))
    image = np.stack([ndimage.gaussian_filter(channel, (0.8, 0.8, 0)) for channel in phantom.image])
    span = float(np.percentile(phantom.image, 99) - np.percentile(phantom.image, 1))
    return noisy(replace(phantom, image=(middle + (image - middle) * 0.7 - 0.06 * span).astype(np.float32)), rng, 0.03)


def noisy(phantom: Phantom, rng: np.random.Generator, share: float) -> Phantom:
    """With Gaussian noise of a share of the image's span."""
    span = float(np.percentile(phantom.image, 99) - np.percentile(phantom.image, 1))
    noise = rng.normal(0, share * span, phantom.image.shape)
    return replace(phantom, image=(phantom.image + noise).astype(np.float32))


def with_lesion(phantom: Phantom, rng: np.random.Generator) -> Phantom:
    """A ball inside a structure takes on the brightness of another tissue; the labels stay."""
    inside = np.argwhere(phantom.labels > 0)
    if not len(inside):
        return phantom
    middle = inside[rng.integers(len(inside))] * phantom.spacing_mm
    axes = np.ogrid[tuple(slice(n) for n in phantom.labels.shape)]
    parts = zip(axes, phantom.spacing_mm, middle, strict=True)
    distance_mm2 = sum(np.square(axis * step_mm - at_mm) for axis, step_mm, at_mm in parts)
    ball = (distance_mm2 < rng.uniform(15, 30) ** 2) & (phantom.labels > 0)
    image = phantom.image.copy()
    for channel in image:
        low, high = np.percentile(channel[phantom.labels > 0], [10, 90])
        channel[ball] = low if channel[ball].mean() > (low + high) / 2 else high
    return replace(phantom, image=image)


def without_label(phantom: Phantom, label: int) -> Phantom:
    """The structure takes on the look of the tissue around it, and loses its label to the commonest one there."""
    own = phantom.labels == label
    around = ndimage.binary_dilation(own, iterations=3) & ~own
    if not own.any() or not around.any():
        return phantom
    into = int(np.bincount(phantom.labels[around]).argmax())
    image, labels = phantom.image.copy(), phantom.labels.copy()
    for channel in image:
        channel[own] += channel[around & (phantom.labels == into)].mean() - channel[own].mean()
    labels[own] = into
    return replace(phantom, image=image, labels=labels)
