"""File names of images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm")
DETACHED_SUFFIXES = (".mhd", ".nhdr")  # of headers whose voxels are in a second file
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")  # radiographs, only read


def is_image(path: Path) -> bool:
    """Whether the name is that of a file that may hold an image."""
    return path.name.lower().endswith(SUFFIXES + PICTURE_SUFFIXES)


def notes_of(image: Path) -> Path:
    """The JSON file beside a radiograph that says what its own does not, such as how large its pixels are."""
    return image.with_name(f"{without_suffix(image.name)}.json")


def with_notes(images: Iterable[Path]) -> list[Path]:
    """Files, and after each that may be a radiograph the place of its notes, whether there are any or not."""
    found = []
    for image in images:
        found.append(image)
        if image.name.lower().endswith((*PICTURE_SUFFIXES, ".dcm")):
            found.append(notes_of(image))
    return found


def without_suffix(name: str) -> str:
    """File name without its image suffix; ``scan.nii.gz`` gives ``scan``."""
    for suffix in SUFFIXES + PICTURE_SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def plain_name(name: str) -> str:
    """File name with its image suffix in small letters, by which ITK and viewers know the format; ``a.MHA`` gives
    ``a.mha``.
    """
    stem = without_suffix(name)
    return stem + name[len(stem) :].lower()
