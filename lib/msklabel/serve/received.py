"""Files from outside that the imaging library is going to open."""

from __future__ import annotations

from pathlib import Path

from msklabel.errors import UserError
from msklabel.imaging.names import DETACHED_SUFFIXES, is_image, without_suffix
from msklabel.store.headers import check_self_contained


def checked_file(file: Path) -> Path:
    """The file, if its name is that of an image and it holds its own voxels: a header could name any file of the host.

    Raises:
        UserError: If not.
    """
    suffix = file.name[len(without_suffix(file.name)) :].lower()
    if not is_image(file) or suffix in DETACHED_SUFFIXES:
        raise UserError(f"{file.name}: expected a NIfTI, NRRD, MetaImage or DICOM file (.nii.gz, .nrrd, .mha, .dcm)")
    check_self_contained(file)
    return file


def checked_series(folder: Path) -> Path:
    """The folder, if none of its files names other files.

    Raises:
        UserError: If one does.
    """
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in DETACHED_SUFFIXES:
            raise UserError(f"{file.name}: send one file that holds all (.nii.gz, .nrrd, .mha), or a DICOM series")
        check_self_contained(file)
    return folder
