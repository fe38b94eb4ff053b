"""File names of images."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")  # radiographs, only read


def is_image(path: Path) -> bool:
    """Whether the name is that of a file that may hold an image."""
    return path.name.lower().endswith(SUFFIXES + PICTURE_SUFFIXES)


def without_suffix(name: str) -> str:
    """File name without its image suffix; ``scan.nii.gz`` gives ``scan``."""
    for suffix in SUFFIXES + PICTURE_SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name
