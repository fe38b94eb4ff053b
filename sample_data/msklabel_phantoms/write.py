"""Write phantoms as NIfTI files with their facts."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

from msklabel_phantoms.generators import generator_of
from msklabel_phantoms.phantom import Fact, Phantom


def generate(
    system: str, seed: int, index: int, shape: Sequence[int] | None = None, spacing_mm: Sequence[float] | None = None
) -> Phantom:
    """Generate one phantom; what comes out depends on these arguments only.

    Args:
        system: Name of the system, a key of ``GENERATORS``.
        seed: Which set of phantoms, 0 or more.
        index: Which phantom of the set, from 0.
        shape: Voxels along x, y, z; None for the generator's own.
        spacing_mm: Voxel size along x, y, z in mm; None for the generator's own.

    Returns:
        The phantom.

    Raises:
        ValueError: There is no such system, or the shape or spacing is impossible.
    """
    options = {"shape": shape, "spacing_mm": spacing_mm}
    given = {name: tuple(value) for name, value in options.items() if value is not None}
    return generator_of(system)(np.random.default_rng([seed, index]), **given)


def write_phantoms(
    system: str,
    out: Path,
    *,
    count: int,
    seed: int,
    shape: Sequence[int] | None = None,
    spacing_mm: Sequence[float] | None = None,
) -> Iterator[Path]:
    """Write phantoms one by one as they are asked for.

    ``out/images/<system>_<seed>_<nnn>.nii.gz`` is the scan, the same name under ``out/truth`` its true labels,
    and ``out/facts.csv`` has a row for each. Every file appears whole or not at all, the image last.

    Args:
        system: Name of the system, a key of ``GENERATORS``.
        out: Folder to write to; made if missing.
        count: How many; more of the same seed continues the same set.
        seed: Which set, 0 or more.
        shape: Voxels along x, y, z; None for the generator's own.
        spacing_mm: Voxel size along x, y, z in mm; None for the generator's own.

    Yields:
        The path of each image after it was written.
    """
    for folder in (out / "images", out / "truth"):
        folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        phantom = generate(system, seed, index, shape, spacing_mm)
        name = f"{system}_{seed}_{index:03d}.nii.gz"
        save_nifti(phantom.labels, phantom.affine, out / "truth" / name)
        _add_facts(out / "facts.csv", {"image": name, "system": system, "seed": seed, "index": index, **phantom.facts})
        image = phantom.image[0] if len(phantom.image) == 1 else np.moveaxis(phantom.image, 0, -1)
        whole_numbers = bool((image == np.rint(image)).all()) and float(np.abs(image).max()) < 2**15
        voxels = image.astype(np.int16) if whole_numbers else image
        save_nifti(voxels, phantom.affine, out / "images" / name)
        yield out / "images" / name


def save_nifti(voxels: npt.NDArray[np.generic], affine: npt.NDArray[np.float64], path: Path) -> None:
    """Write a NIfTI file under another name beside its folder, then move it into place."""
    nifti = nib.Nifti1Image(voxels, affine)
    nifti.header.set_xyzt_units("mm")
    nifti.set_qform(affine, code=1)
    nifti.set_sform(affine, code=1)
    partial = path.parent.parent / f".partial-{os.getpid()}-{path.name}"
    try:
        nib.save(nifti, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _add_facts(path: Path, facts: Mapping[str, Fact]) -> None:
    """Add a row to the table of facts, or replace the row of the same image."""
    rows: dict[str, Mapping[str, object]] = {}
    if path.exists():
        with path.open(newline="") as file:
            rows = {row["image"]: row for row in csv.DictReader(file)}
    rows[str(facts["image"])] = facts
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        with partial.open("w", newline="") as file:
            table = csv.DictWriter(file, columns, restval="")
            table.writeheader()
            table.writerows(rows[image] for image in sorted(rows))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
