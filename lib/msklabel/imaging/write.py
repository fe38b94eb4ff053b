"""Write a label map with its exact geometry, whole or not at all."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from msklabel.durable import flush, new_beside
from msklabel.imaging.geometry import to_lps
from msklabel.imaging.names import SUFFIXES, without_suffix
from msklabel.imaging.scan import LabelMap
from msklabel.sections import Label

_COMPRESSION = 1  # level of zlib: label maps are mostly runs, and somebody waits


def write_labels(path: str | Path, labels: LabelMap, scheme: Mapping[str, Label] | None = None) -> None:
    """Write a label map; the file appears under its name only when it is complete and on disk.

    Args:
        path: Its suffix chooses the format. NRRD files carry names, colours and codes of the segments as 3D Slicer
            reads them.
        labels: The voxels and their place.
        scheme: The labels by name, for NRRD.

    Raises:
        ValueError: If the suffix is none that can be written.
        OSError: If the disk is full or the folder cannot be written.
    """
    path = Path(path)
    suffix = path.name[len(without_suffix(path.name)) :].lower()
    if suffix not in SUFFIXES or suffix in (".dcm", ".nhdr", ".mhd"):
        raise ValueError(f"{path.name}: cannot write this format; use .nii.gz or .nrrd")
    temporary = new_beside(path, suffix)
    try:
        if suffix in (".nii", ".nii.gz"):
            temporary.write_bytes(nifti_bytes(labels, compressed=suffix == ".nii.gz"))
        else:
            sitk.WriteImage(
                _itk(labels, scheme if suffix == ".nrrd" else None),
                str(temporary),
                useCompression=True,
                compressionLevel=_COMPRESSION,
            )
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    except RuntimeError as error:
        raise OSError(f"{path.name}: could not be written; the disk may be full") from error
    finally:
        temporary.unlink(missing_ok=True)


def nifti_bytes(labels: LabelMap, compressed: bool = True) -> bytes:
    """A whole NIfTI file; ITK's writer of this format ends quietly when the disk is full, so it is not used."""
    image = nib.Nifti1Image(labels.array, labels.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(labels.affine, code=1)
    image.set_qform(labels.affine, code=1)
    data = image.to_bytes()
    return gzip.compress(data, _COMPRESSION, mtime=0) if compressed else data


def _itk(labels: LabelMap, scheme: Mapping[str, Label] | None) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(labels.array.transpose(2, 1, 0)))
    origin, spacing, direction = to_lps(labels.affine)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    for key, value in _segments(labels, scheme or {}).items():
        image.SetMetaData(key, value)
    return image


def _segments(labels: LabelMap, scheme: Mapping[str, Label]) -> dict[str, str]:
    """Segment fields of a Slicer ``.seg.nrrd`` header."""
    if not scheme:
        return {}
    extent = " ".join(f"0 {n - 1}" for n in labels.array.shape)
    fields = {"Segmentation_MasterRepresentation": "Binary labelmap"}
    for number, (name, label) in enumerate(scheme.items()):
        designator, value = label.code.split(":")
        key = f"Segment{number}"
        fields |= {
            f"{key}_ID": name,
            f"{key}_Name": name,
            f"{key}_LabelValue": str(label.index),
            f"{key}_Layer": "0",
            f"{key}_Extent": extent,
            f"{key}_Color": " ".join(f"{part / 255:.6f}" for part in label.color),
            f"{key}_Tags": f"TerminologyEntry:Segmentation category and type - {designator}~{value}~{name}|",
        }
    return fields
