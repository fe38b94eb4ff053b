"""A folder of small scans, systems and labels for the tests of the store."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from msklabel.store.datastore import MskDatastore
from msklabel.system import System, load_system

CONFIGS = Path(__file__).parents[2] / "configs"
SHAPE = (8, 7, 5)
SPACING_MM = (1.0, 1.5, 2.0)
TISSUES = load_system(CONFIGS / "hip_tissue_ct.yaml")
ABDUCTORS = load_system(CONFIGS / "hip_abductor_mr.yaml")
DIXON = load_system(CONFIGS / "thigh_dixon.yaml")
ORIGIN_MM = (10.0, -20.0, 30.0)
DATABASE: str | None = None  # URL of the database that new stores use; a file in their state folder by default


def write(
    path: Path, array: np.ndarray, spacing_mm: tuple[float, ...] = SPACING_MM, origin_mm: tuple[float, ...] = ORIGIN_MM
) -> Path:
    """Write voxels of shape (X, Y, Z) in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(spacing_mm)
    image.SetOrigin(origin_mm)
    sitk.WriteImage(image, str(path))
    return path


def read(path: Path | str) -> np.ndarray:
    """Voxels of shape (X, Y, Z)."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T


def scan(path: Path, seed: int = 0) -> Path:
    """Write a scan of random HU."""
    return write(path, np.random.default_rng(seed).integers(-100, 400, SHAPE).astype(np.int16))


def blocks(*values: int) -> np.ndarray:
    """A label map with one slab of each value, and background elsewhere."""
    array = np.zeros(SHAPE, np.uint8)
    for place, value in enumerate(values):
        array[place + 1, 1:4, 1:3] = value
    return array


def store(studies: Path, *systems: System, models: dict[str, str] | None = None) -> MskDatastore:
    """A datastore on a folder, its state inside the folder."""
    served = {system.name: system for system in systems or (TISSUES,)}
    return MskDatastore(studies, studies / ".msklabel", served, models, DATABASE)


def listed(*names: str, first: int = 1) -> list[dict[str, Any]]:
    """``label_info`` with idx counting from ``first``."""
    return [{"name": name, "idx": number} for number, name in enumerate(names, start=first)]


def monai_label_folder(studies: Path, image_id: str, tag: str, info: dict[str, Any]) -> None:
    """Add a label to the record of MONAI Label's own datastore."""
    file = studies / "datastore_v2.json"
    record = json.loads(file.read_text()) if file.exists() else {"name": "old", "description": "", "objects": {}}
    image = record["objects"].setdefault(image_id, {"image": {"ext": ".nii.gz", "info": {}}, "labels": {}})
    image["labels"][tag] = {"ext": ".nii.gz", "info": info}
    file.write_text(json.dumps(record))


@contextmanager
def meanwhile(work: Callable[[int], object]) -> Iterator[None]:
    """Do work with 1, 2, 3 and so on in another thread until the block ends; its error is raised then."""
    stop = threading.Event()

    def go_on() -> None:
        for number in itertools.takewhile(lambda _: not stop.is_set(), itertools.count(1)):
            work(number)

    with ThreadPoolExecutor(1) as thread:
        going = thread.submit(go_on)
        try:
            yield
        finally:
            stop.set()
        going.result()
