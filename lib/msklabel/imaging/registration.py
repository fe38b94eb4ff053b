"""Maps of a quantity brought to the grid of a reference: by elastix, or by transforms that are there already.

Elastix (Klein et al. 2010, doi:10.1109/TMI.2009.2035616; itk-elastix) runs in a process of its own, like ITK's other
filters here (see :mod:`msklabel.imaging.contours`): rigid first, then a B-spline where that is asked for, by mutual
information, with a fixed seed. What is registered may be another image than the map, on the same grid.

Voxels where a map says nothing (0 or NaN) must not be mixed with others: the map and the mask of its speaking voxels
are both resampled linearly, and their quotient is the map where at least half of the weight speaks.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from msklabel.errors import UserError
from msklabel.imaging.geometry import Affine, to_lps

logger = logging.getLogger(__name__)
Kind = Literal["rigid", "bspline"]
KINDS: tuple[Kind, ...] = ("rigid", "bspline")
SUFFIXES = (".tfm", ".h5", ".mat", ".txt")
_LEAST_WEIGHT = 0.5
_SEED = "121212"
_RESOLUTIONS = "3"


@dataclass(frozen=True)
class Moving:
    """A patient's map, and the image that is registered.

    Attributes:
        image: Shape (X, Y, Z).
        values: The map on the same grid; 0 or NaN where it says nothing.
        affine: Voxel index to RAS mm.
    """

    image: NDArray[Any]
    values: NDArray[Any]
    affine: Affine


@dataclass(frozen=True)
class Moved:
    """A patient on the grid of the reference.

    Attributes:
        image: The registered image; 0 outside it.
        values: The map; NaN where it says nothing.
    """

    image: NDArray[np.float32]
    values: NDArray[np.float32]


def register(
    reference: NDArray[Any],
    affine: Affine,
    moving: Sequence[Moving],
    kind: Kind = "bspline",
    grid_mm: float = 12.0,
    iterations: int = 250,
    names: Sequence[str] = (),
) -> list[Moved]:
    """Register patients to a reference.

    Args:
        reference: Shape (X, Y, Z).
        affine: Voxel index of the reference to RAS mm.
        moving: Patients.
        kind: ``rigid``, or ``bspline`` after it.
        grid_mm: Distance of the B-spline's control points.
        iterations: At most, of either kind at each of three resolutions; the time goes with them.
        names: What to call the patients where one fails; by default by their place in ``moving``.

    Raises:
        UserError: If a registration fails, such as for want of overlap; names the patient.
        RuntimeError: If the process that registers fails otherwise.
    """
    if not moving:
        return []
    with tempfile.TemporaryDirectory(prefix="msklabel-register-") as folder:
        given, made = Path(folder) / "given.npz", Path(folder) / "made.npz"
        arrays: dict[str, Any] = {"reference": np.asarray(reference, np.float32), "affine": affine}
        for number, one in enumerate(moving):
            values, speaks = _parted(one.values)
            arrays |= {f"image{number}": np.asarray(one.image, np.float32), f"affine{number}": one.affine}
            arrays |= {f"values{number}": values, f"speaks{number}": speaks}
        np.savez(given, **arrays)
        command = [sys.executable, "-m", __name__, str(given), str(made), kind, str(grid_mm), str(iterations)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not made.is_file():
            logger.error("registration ended with %d: %s", done.returncode, done.stderr[-2000:])
            raise RuntimeError(f"the process that registers ended with code {done.returncode}")
        with np.load(made) as blocks:
            if "failed" in blocks:
                number = int(blocks["failed"])
                name = names[number] if names else f"patient {number + 1}"
                raise UserError(f"{name}: cannot be registered: the images do not overlap enough, or differ too much")
            numbers = range(len(moving))
            return [_moved(*(blocks[f"{name}{n}"] for name in ("image", "values", "speaks"))) for n in numbers]


def transformed(reference_shape: Sequence[int], affine: Affine, one: Moving, file: Path) -> Moved:
    """Bring a patient to the reference by a transform from a file.

    Args:
        reference_shape: Voxels of the reference along each axis.
        affine: Of the reference, voxel index to RAS mm.
        one: The patient.
        file: ITK's transform (``.tfm``, ``.txt``, ``.h5``, ``.mat``), from the reference's points to the patient's.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        transform = sitk.ReadTransform(str(file))
    except RuntimeError as error:
        raise UserError(f"{file.name}: cannot be read as a transform of ITK") from error
    values, speaks = _parted(one.values)
    grid = _image(np.zeros(tuple(reference_shape), np.float32), affine)
    moved = []
    for array in (one.image, values, speaks):
        made = sitk.Resample(_image(np.asarray(array, np.float32), one.affine), grid, transform, sitk.sitkLinear, 0.0)
        moved.append(sitk.GetArrayFromImage(made).T)
    return _moved(*moved)


def _parted(values: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A map with 0 where it says nothing, and 1 where it speaks."""
    speaks = np.isfinite(values) & (values > 0)
    return np.where(speaks, values, 0).astype(np.float32), speaks.astype(np.float32)


def _moved(image: NDArray[Any], values: NDArray[Any], weight: NDArray[Any]) -> Moved:
    told = weight >= _LEAST_WEIGHT
    quotient = np.where(told, values / np.where(told, weight, 1), np.nan)
    return Moved(np.asarray(image, np.float32), quotient.astype(np.float32))


def _image(array: NDArray[np.float32], affine: Affine) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    origin, spacing, direction = to_lps(affine)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    return image


def _register_all(given: Path, made: Path, kind: str, grid_mm: float, iterations: str) -> None:
    """The child's side; the wrapped classes are named in full, because ``itk.elastix`` loads ten times as many."""
    with np.load(given) as arrays:
        fixed = _itk_image(arrays["reference"], arrays["affine"])
        found: dict[str, Any] = {}
        count = sum(name.startswith("image") for name in arrays)
        for number in range(count):
            place = arrays[f"affine{number}"]
            moving = _itk_image(arrays[f"image{number}"], place)
            try:
                parameters = _elastix(fixed, moving, kind, grid_mm, iterations)
            except RuntimeError as error:
                logger.error("%s", error)
                found = {"failed": number}
                break
            for name in ("image", "values", "speaks"):
                found[f"{name}{number}"] = _transformix(_itk_image(arrays[f"{name}{number}"], place), parameters)
    partial = made.with_name("partial.npz")
    np.savez(partial, **found)
    partial.replace(made)


def _elastix(fixed: Any, moving: Any, kind: str, grid_mm: float, iterations: str) -> Any:
    from itk.elxParameterObjectPython import elastixParameterObject
    from itk.itkElastixRegistrationMethodPython import itkElastixRegistrationMethodIF3IF3

    parameters = elastixParameterObject.New()
    for name in KINDS[: KINDS.index(kind) + 1]:
        chosen = elastixParameterObject.GetDefaultParameterMap(name, 3, grid_mm)
        settings = {"RandomSeed": _SEED, "MaximumNumberOfIterations": iterations, "NumberOfResolutions": _RESOLUTIONS}
        settings |= {"WriteResultImage": "false", "FinalBSplineInterpolationOrder": "1", "DefaultPixelValue": "0"}
        for key, value in settings.items():
            chosen[key] = [value]
        parameters.AddParameterMap(chosen)
    method = itkElastixRegistrationMethodIF3IF3.New()
    method.SetFixedImage(fixed)
    method.SetMovingImage(moving)
    method.SetParameterObject(parameters)
    method.SetLogToConsole(False)
    method.UpdateLargestPossibleRegion()
    return method.GetTransformParameterObject()


def _transformix(image: Any, parameters: Any) -> NDArray[np.float32]:
    from itk.itkPyBufferPython import itkPyBufferIF3
    from itk.itkTransformixFilterPython import itkTransformixFilterIF3

    transformix = itkTransformixFilterIF3.New()
    transformix.SetMovingImage(image)
    transformix.SetTransformParameterObject(parameters)
    transformix.SetLogToConsole(False)
    transformix.UpdateLargestPossibleRegion()
    return np.array(itkPyBufferIF3.GetArrayFromImage(transformix.GetOutput())).T


def _itk_image(array: NDArray[Any], affine: Affine) -> Any:
    from itk.itkPyBufferPython import itkPyBufferIF3

    image = itkPyBufferIF3.GetImageFromArray(np.ascontiguousarray(array.T, np.float32))
    origin, spacing, direction = to_lps(affine)
    image.SetOrigin(list(origin))
    image.SetSpacing(list(spacing))
    image.SetDirection(np.array(direction, float).reshape(3, 3))
    return image


if __name__ == "__main__":
    _register_all(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], float(sys.argv[4]), sys.argv[5])
    sys.stdout.flush()
    os._exit(0)
