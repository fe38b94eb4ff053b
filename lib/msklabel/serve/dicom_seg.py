"""The result of an inference as a DICOM Segmentation of the series that it was made for."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydicom
from pydicom.errors import InvalidDicomError

from msklabel.errors import UserError
from msklabel.imaging.read import read_labels
from msklabel.imaging.seg_write import Drawn, write_seg
from msklabel.imaging.viewer_frames import labelled_files
from msklabel.system import System


def dicom_sources(path: Path) -> list[pydicom.Dataset]:
    """Headers of the DICOM images that a label of a scan lies on, in the order of their slices.

    Args:
        path: A file, or a folder of one series.

    Raises:
        UserError: If it is no DICOM; or ImageError, if it is no regular volume.
    """
    try:
        return [pydicom.dcmread(file, stop_before_pixels=True) for file in labelled_files(path)]
    except InvalidDicomError as error:
        raise UserError(
            f"output dicom_seg: {path.name} is no DICOM series, which a DICOM Segmentation has to refer to; use "
            "output image"
        ) from error


def segmentation_file(
    result: Mapping[str, Any], sources: list[pydicom.Dataset], system: System, model: str, author: str
) -> bytes:
    """A whole DICOM file (PS3.3 A.51), each label that occurs with its code and colour.

    Args:
        result: Of the inference: ``file``, and ``params`` with ``model_version``.
        sources: From :func:`dicom_sources`.
        system: Names the labels.
        model: That segmented.
        author: Who asked; may be empty.

    Raises:
        ImageError: If nothing was found, or the images name no frame of reference.
    """
    version = str((result.get("params") or {}).get("model_version") or "")
    drawn = Drawn("AUTOMATIC", model, version, author, "msklabel draft, not reviewed")
    segmentation = write_seg(read_labels(result["file"]), sources, system.labels, drawn, system.name)
    whole = io.BytesIO()
    segmentation.save_as(whole, write_like_original=False)
    return whole.getvalue()
