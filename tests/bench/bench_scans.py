"""Scans to time predictions on, as both sides can read them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np


def as_nifti(scan: Path, cut: str | None, folder: Path) -> Path:
    """The scan, or its middle, in a format that both sides read."""
    import nibabel as nib

    from msklabel.imaging.read import read_scan

    if scan.name.endswith((".nii", ".nii.gz")) and not cut:
        return scan
    read = read_scan(scan)
    image = nib.Nifti1Image(read.array[0], read.affine)
    if cut:
        starts = [max(0, n - int(kept)) // 2 for n, kept in zip(image.shape, cut.split("x"), strict=True)]
        image = image.slicer[tuple(slice(start, n - start) for start, n in zip(starts, image.shape, strict=True))]
    nib.save(image, folder / "scan.nii.gz")
    return folder / "scan.nii.gz"


def resampled(scan: Path, spacing_mm: tuple[float | None, ...], folder: Path) -> Path:
    """The scan on a network's grid, axes in the order of the world's, so that neither side has labels to enlarge."""
    import nibabel as nib
    from nibabel.processing import resample_to_output

    image = nib.load(scan)
    lowest = float(np.asanyarray(image.dataobj).min())
    sizes = [wanted or own for wanted, own in zip(spacing_mm, image.header.get_zooms(), strict=True)]
    nib.save(resample_to_output(image, sizes, order=1, cval=lowest), folder / "resampled.nii.gz")
    return folder / "resampled.nii.gz"


def synthetic(labelmap: Path, shape: str, folder: Path) -> Path:
    """A CT of so many voxels, made of a label map."""
    command = [sys.executable, "-m", "msklabel", "synthesize", str(labelmap), "--modality", "ct", "--shape", shape]
    subprocess.run([*command, "-o", str(folder)], check=True, stdout=sys.stderr)
    return next((folder / "images").glob("*.nii.gz"))
