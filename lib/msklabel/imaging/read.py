"""Read a scan or a label map from NIfTI, NRRD, MetaImage, one DICOM file or a folder of one DICOM series.

Radiographs, from DICOM, PNG or JPEG, are read in ``msklabel.imaging.radiograph``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from msklabel.imaging.checksums import META, require_intact
from msklabel.imaging.dicom import series_files
from msklabel.imaging.geometry import Affine, from_lps
from msklabel.imaging.geometry import spacing_mm as spacing_mm_of
from msklabel.imaging.multiframe import stack_affine
from msklabel.imaging.names import SUFFIXES, plain_name
from msklabel.imaging.nifti import require_finite, require_whole, why_unread
from msklabel.imaging.pixel_data import check_pixel_data, lossy_sentence
from msklabel.imaging.radiograph import is_radiograph, read_radiograph
from msklabel.imaging.scan import ImageError, LabelMap, Scan, is_usable

_FACTS = {
    "0008|0060": "modality",
    "0010|0020": "patient",
    "0008|0080": "site",
    "0008|103e": "series",
    "0020|000d": "StudyInstanceUID",
    "0020|000e": "SeriesInstanceUID",
}
_THICKNESS = "0018|0050"
_NIFTI_CODES = ("qform_code", "sform_code")
_NIFTI = (".nii", ".nii.gz")
_NOT_DICOM = tuple(suffix for suffix in SUFFIXES if suffix != ".dcm")
_LARGEST_MM = 3000.0
_SMALLEST_VOXEL_MM = 0.01
_MOST_VOXELS = 2**31
sitk.ProcessObject.SetGlobalWarningDisplay(False)


def read_scan(path: str | Path, spacing_mm: Sequence[float] | None = None) -> Scan:
    """Read a scan with its geometry.

    Args:
        path: A file, or a folder that holds the files of one DICOM series.
        spacing_mm: Of a radiograph: distance of neighbouring columns and rows, mm, where its file does not say it.

    Returns:
        The scan, voxels as stored (rescaled to HU for DICOM CT), a fourth dimension as channels. ``facts`` holds
        ``lossy``, a sentence, where DICOM images were compressed with losses, and ``unoriented``, another one, where a
        NIfTI header does not say how the scan lies.

    Raises:
        ImageError: If it is no image, damaged, compressed in a way that cannot be read, not a regular volume, larger
            than any scanner, of voxels smaller than 0.01 mm, its values are not all finite and real, or it is a
            radiograph and nothing says how large its pixels are.
    """
    path = Path(path)
    files = _files(path)
    if len(files) == 1 and is_radiograph(files[0]):
        return read_radiograph(files[0], spacing_mm)
    if spacing_mm is not None:
        raise ImageError(f"{path.name}: spacing_mm is for radiographs; other scans carry their own geometry")
    may_be_dicom = path.is_dir() or not path.name.lower().endswith(_NOT_DICOM)
    checked = [check_pixel_data(file, path.name) for file in files] if may_be_dicom else []
    stored = [one for one in checked if one is not None]
    lossy = lossy_sentence({one.losses for one in stored})
    placed = stack_affine(files[0]) if may_be_dicom and len(files) == 1 else None
    image = _load(path, files, unevenly_scaled=len({one.scale for one in stored}) > 1)
    array, affine = _unpack(image, path)
    affine = affine if placed is None else placed
    if stored and array.shape[3] == 1:
        affine = affine @ np.diag([1.0, 1.0, _thickness_mm(image), 1.0])
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ImageError(f"{path.name}: some voxels are not finite numbers")
    _require_plausible(path, array.shape[1:], affine)
    facts = {name: image.GetMetaData(tag).strip() for tag, name in _FACTS.items() if image.HasMetaDataKey(tag)}
    doubts = {"lossy": lossy, "unoriented": _unoriented(image)}
    return Scan(array, affine, facts | {name: doubt for name, doubt in doubts.items() if doubt})


def read_labels(path: str | Path) -> LabelMap:
    """Read a label map with its geometry.

    Raises:
        ImageError: If it is no image, has several channels, or holds values that are no whole numbers from 0 to 255.
    """
    path = Path(path)
    array, affine = _unpack(_load(path, _files(path)), path)
    if len(array) != 1:
        raise ImageError(f"{path.name}: a label map has one channel, this has {len(array)}")
    labels = array[0].astype(np.uint8)
    if not np.array_equal(labels, array[0]):
        raise ImageError(f"{path.name}: label values must be whole numbers from 0 to 255")
    return LabelMap(labels, affine)


def _require_plausible(path: Path, shape: Sequence[int], affine: Affine) -> None:
    steps_mm = spacing_mm_of(affine)
    extent_mm = [n * step for n, step in zip(shape, steps_mm, strict=True)]
    if max(extent_mm) > _LARGEST_MM or min(steps_mm) < _SMALLEST_VOXEL_MM:
        size, steps = (" x ".join(f"{mm:.4g}" for mm in lengths) for lengths in (extent_mm, steps_mm))
        raise ImageError(f"{path.name}: is {size} mm large, as its voxels are said to be {steps} mm; mend its header")


def _files(path: Path) -> list[Path]:
    """The file, or the slices of the series in a folder from first to last."""
    if not path.exists():
        raise ImageError(f"{path.name}: no such file")
    return [Path(file) for file in series_files(path)] if path.is_dir() else [path]


def _thickness_mm(image: sitk.Image) -> float:
    """Of a single DICOM slice, which ITK takes for 1 mm thick; 1 where it has another size, or tells none."""
    text = image.GetMetaData(_THICKNESS).strip() if image.HasMetaDataKey(_THICKNESS) else ""
    try:
        thickness = float(text)
    except ValueError:
        return 1.0
    return thickness if thickness > 0 and (image.GetDimension() == 2 or image.GetSpacing()[2] == 1) else 1.0


def _unoriented(image: sitk.Image) -> str:
    """A sentence where a NIfTI header sets neither transform; ITK then takes the axes for left, posterior, superior."""
    if all(image.HasMetaDataKey(code) and image.GetMetaData(code).strip() == "0" for code in _NIFTI_CODES):
        return (
            "The scan's NIfTI header does not say how it lies (qform_code and sform_code are 0): left and right, front "
            "and back, head and foot may be the other way round"
        )
    return ""


def _load(path: Path, files: list[Path], unevenly_scaled: bool = False) -> sitk.Image:
    """The image of a file, or of the slices of a series; in floating point where they are not all scaled alike, for ITK
    takes the first one's type for all.
    """
    try:
        if path.is_dir():
            series = sitk.ImageSeriesReader()
            series.SetFileNames([str(file) for file in files])
            series.MetaDataDictionaryArrayUpdateOn()
            if unevenly_scaled:
                series.SetOutputPixelType(sitk.sitkFloat32)
            image = series.Execute()
            for tag in (*_FACTS, _THICKNESS):
                if series.HasMetaDataKey(0, tag):
                    image.SetMetaData(tag, series.GetMetaData(0, tag))
            return image
        with _alone(path) as file:
            reader = sitk.ImageFileReader()
            reader.SetFileName(str(file))
            if path.name != plain_name(path.name) and path.name.lower().endswith(META):
                reader.SetImageIO("MetaImageIO")  # no link: a header may name a file beside it
            _require_room(reader, path.name)
            if path.name.lower().endswith(_NIFTI):
                require_whole(path)
                require_finite(path)
            require_intact(path)
            return reader.Execute()
    except RuntimeError as error:
        if "orthonormal" in str(error):
            raise ImageError(
                f"{path.name}: its axes are not at right angles, as after a tilted gantry; resample it to a "
                "rectangular grid first"
            ) from error
        why = why_unread(path) if path.name.lower().endswith(_NIFTI) else ""
        why = why or "cannot be read as an image; it may be damaged or of another kind"
        raise ImageError(f"{path.name}: {why}") from error


@contextmanager
def _alone(path: Path) -> Iterator[Path]:
    """The file, or of NIfTI a link elsewhere: where ``a.nii`` lies beside ``a.nii.gz``, as ITK takes the voxels of the
    former, and where the suffix has capital letters, of which it does not take all.
    """
    name = plain_name(path.name)
    beside = name.endswith(".nii.gz") and path.with_name(path.name[: -len(".gz")]).exists()
    if not name.endswith(_NIFTI) or (name == path.name and not beside):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="msklabel-") as folder:
        link = Path(folder) / name
        link.symlink_to(path.resolve())
        yield link


def _require_room(reader: sitk.ImageFileReader, name: str) -> None:
    """Refuse, before any of it is in memory, what a small compressed file may hold."""
    reader.ReadImageInformation()
    voxels = prod(reader.GetSize()) * reader.GetNumberOfComponents()
    if voxels > _MOST_VOXELS:
        raise ImageError(f"{name}: has {voxels:.3g} voxels, more than any scan; the most is {_MOST_VOXELS:.3g}")


def _unpack(image: sitk.Image, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Array (C, X, Y, Z) and RAS affine of an ITK image; a 2D image becomes one slice."""
    if image.GetDimension() == 2:
        image = sitk.JoinSeries(image)
    components = image.GetNumberOfComponentsPerPixel()
    array = sitk.GetArrayFromImage(image)
    if array.dtype.kind == "c":
        raise ImageError(f"{path.name}: its voxels are complex numbers; save their magnitude")
    if image.GetDimension() == 4 and components == 1:
        array = array.transpose(0, 3, 2, 1)
    elif image.GetDimension() == 3:
        array = array.transpose(3, 2, 1, 0) if components > 1 else array.transpose(2, 1, 0)[None]
    else:
        raise ImageError(f"{path.name}: expected 2, 3 or 4 dimensions, got {image.GetDimension()}")
    if 0 in array.shape:
        raise ImageError(f"{path.name}: the image has no voxels")
    direction = np.asarray(image.GetDirection()).reshape([image.GetDimension()] * 2)[:3, :3]
    affine = from_lps(image.GetOrigin()[:3], image.GetSpacing()[:3], tuple(direction.ravel()))
    if not is_usable(affine):
        raise ImageError(f"{path.name}: its header does not give a size and a place of its voxels in numbers; mend it")
    return array, affine
