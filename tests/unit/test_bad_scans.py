"""Scans that are not as they should be: handled with a mask on their own grid, or refused in one clear sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from store_samples import store
from test_channels import series
from test_preprocess import AFFINES, body_in_air, make_system

from msklabel.errors import UserError
from msklabel.imaging.read import read_labels, read_scan
from msklabel.learn.versions import Versions
from msklabel.networks import build_network, weights_of
from msklabel.predict.served import ServedModel
from msklabel.predict.task import ModelTask
from msklabel.system import System

OTHERS = "these weights are of toy .* not of toy"
UNET = {"name": "plain_unet", "features": [4, 8], "strides": [[1, 1, 1], [2, 2, 2]], "kernel": 3}
CT = make_system(dimensions=3, spacing_mm=[2.0, 2.0, 3.0], patch_voxels=[16, 16, 8], network=UNET)
DIXON = make_system(
    dimensions=3,
    modality=["MR"],
    channels=["out_of_phase", "in_phase"],
    spacing_mm=[4.0, 4.0, 6.0],
    patch_voxels=[16, 16, 8],
    network=UNET,
    laterality="mirror_halves",
    intensity={"kind": "window", "lower": 0, "upper": 2000},
)


def save(file: Path, array: np.ndarray, affine: np.ndarray) -> None:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, file)


def ct(folder: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    save(folder / "scan.nii.gz", array.astype(np.int16), AFFINES["RAS"] if affine is None else affine)
    return folder / "scan.nii.gz"


def body(shape: tuple[int, int, int] = (40, 36, 20)) -> np.ndarray:
    return body_in_air(shape)[0]


def with_metal() -> np.ndarray:
    """A body with an implant of the largest value that 12 bits hold, and a dark streak."""
    hu = body()
    hu[18:22, 16:20] = 3071
    hu[8:32, 18, 8:12] = -1024
    return hu


def sheared() -> np.ndarray:
    affine = AFFINES["RAS"].copy()
    affine[1, 2] = 1.2
    return affine


def thighs(legs: Sequence[int] = (-1, 1), muscle_fat: float = 0.1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Water and fat of thighs in fat, and the affine; shape (100, 50, 12), 4 x 4 x 6 mm, the middle at x = 0."""
    x, y, _ = np.meshgrid((np.arange(100) - 49.5) * 4, (np.arange(50) - 24.5) * 4, np.arange(12), indexing="ij")
    water, fat = np.zeros(x.shape, np.float32), np.zeros(x.shape, np.float32)
    for leg in legs:
        radius = np.hypot(x - leg * 95, y)
        water[radius < 80], fat[radius < 80] = 100, 1500
        water[radius < 64], fat[radius < 64] = 1100 * (1 - muscle_fat), 1500 * muscle_fat
    affine = np.diag([4.0, 4, 6, 1])
    affine[:3, 3] = (-198, -98, 0)
    return water, fat, affine


def dixon(folder: Path, water: np.ndarray, fat: np.ndarray, affine: np.ndarray, channels: Sequence[str]) -> Path:
    images = {"water": water, "fat": fat, "in_phase": water + fat, "out_of_phase": np.abs(water - fat)}
    for name in channels:
        save(folder / f"leg_{name}.nii.gz", images[name], affine)
    return folder / f"leg_{channels[0]}.nii.gz"


PHASES, WATER_FAT = ("out_of_phase", "in_phase"), ("water", "fat")


def swapped(folder: Path) -> Path:
    water, fat, affine = thighs()
    return dixon(folder, fat, water, affine, WATER_FAT)


def swapped_in_one_leg(folder: Path) -> Path:
    water, fat, affine = thighs()
    left = slice(0, 50)
    water[left], fat[left] = fat[left].copy(), water[left].copy()
    return dixon(folder, water, fat, affine, WATER_FAT)


def one_leg(folder: Path, middle_mm: float) -> Path:
    water, fat, affine = thighs(legs=(1,))
    affine[0, 3] += middle_mm - 95
    return dixon(folder, water[50:], fat[50:], affine @ _moved(50), PHASES)


def _moved(voxels: int) -> np.ndarray:
    affine = np.eye(4)
    affine[0, 3] = voxels
    return affine


@dataclass(frozen=True)
class Item:
    """A scan that is wrong in one way.

    Attributes:
        name: In which.
        system: What it is given to.
        make: Writes it to a folder; gives its path.
        says: Part of the refusal; None where it is segmented on its own grid.
    """

    name: str
    system: System
    make: Callable[[Path], Path]
    says: str | None = None


ITEMS = [
    Item("missing channel", DIXON, lambda f: dixon(f, *thighs(), ("in_phase",)), "missing channel out_of_phase"),
    Item("only water of the pair", DIXON, lambda f: dixon(f, *thighs(), ("water", "in_phase")), "missing channel"),
    Item("phases made from water and fat", DIXON, lambda f: dixon(f, *thighs(), WATER_FAT)),
    Item("water and fat swapped", DIXON, swapped, "water and fat are exchanged in"),
    Item("water and fat swapped in one leg", DIXON, swapped_in_one_leg, "water and fat are exchanged in"),
    Item("one leg, right by its place", DIXON, lambda f: one_leg(f, 95)),
    Item("one leg, left by its place", DIXON, lambda f: one_leg(f, -95)),
    Item("one leg in the middle", DIXON, lambda f: one_leg(f, 0), "only one leg is in this scan"),
    Item("nothing but air", CT, lambda f: ct(f, np.full((20, 20, 10), -1000)), "nothing but air or noise"),
    Item("shorter than the patch", CT, lambda f: ct(f, body((40, 36, 3)))),
    Item("smaller than the patch along every axis", CT, lambda f: ct(f, body((9, 9, 3)))),
    Item("one slice", CT, lambda f: ct(f, body((40, 36, 5))[..., 2:3])),
    Item("anisotropic", CT, lambda f: ct(f, body((60, 54, 8)), np.diag([0.7, 0.9, 10, 1.0]))),
    Item("oblique", CT, lambda f: ct(f, body(), AFFINES["oblique"])),
    Item("sideways", CT, lambda f: ct(f, body(), AFFINES["sideways"])),
    Item("sheared, as by a tilted gantry", CT, lambda f: ct(f, body(), sheared()), "not at right angles"),
    Item("an implant", CT, lambda f: ct(f, with_metal())),
    Item("MR to a system for CT", CT, lambda f: _mr(f), "toy is for CT, this is MR"),
]


def _mr(folder: Path) -> Path:
    series(folder / "mr", "t1", 100, "1.2.3")
    return folder / "mr"


def served(system: System, folder: Path, weights_for: System | None = None) -> ModelTask:
    torch.manual_seed(0)
    versions = Versions(folder / "models")
    trained = weights_for or system
    version = versions.add(trained, [weights_of(build_network(trained))], {})
    versions.publish(trained.name, version.name)
    return ModelTask(system, ServedModel(system, versions, "cpu"))


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.name)
def test_each_is_segmented_on_its_own_grid_or_refused_in_a_sentence(item: Item, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    path = item.make(scans)
    task = served(item.system, tmp_path)
    if item.says is not None:
        with pytest.raises(UserError, match=item.says) as refused:
            task({"image": str(path)})
        assert "\n" not in str(refused.value)
        return
    file, _ = task({"image": str(path)})
    mask, scan = read_labels(file), read_scan(path)
    assert mask.array.shape == scan.shape
    np.testing.assert_allclose(mask.affine, scan.affine, atol=1e-4)
    assert mask.array.max() <= 2
    assert mask.array.any()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"network": {**UNET, "features": [4, 12]}}, OTHERS),
        (
            {"labels": {"dense": {"index": 1, "code": "99MSKLABEL:DENSE", "color": [1, 2, 3]}}},
            OTHERS,
        ),
        ({"intensity": {"kind": "window", "lower": -100, "upper": 400}}, OTHERS),
    ],
    ids=["network", "labels", "intensity"],
)
def test_weights_of_another_configuration_are_refused(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    other = System.model_validate({**CT.model_dump(exclude_unset=True), **changes})
    task = served(CT, tmp_path, weights_for=other)
    with pytest.raises(UserError, match=says):
        task({"image": str(ct(tmp_path, body()))})


def test_a_header_that_does_not_say_how_the_scan_lies_is_told(tmp_path: Path) -> None:
    image = nib.Nifti1Image(body(), np.diag([-2.0, 2.0, 3.0, 1.0]))
    image.set_qform(None, 0)
    image.set_sform(None, 0)
    nib.save(image, tmp_path / "unknown.nii")
    _, said = served(CT, tmp_path)({"image": str(tmp_path / "unknown.nii")})
    (warning,) = said["warnings"]
    assert "left and right" in warning
    images = store(tmp_path, CT).store.images
    images.grid("unknown")
    assert images.get("unknown").info["unoriented"] == warning
    save(tmp_path / "unknown.nii", body()[:-1], np.diag([-2.0, 2.0, 3.0, 1.0]))
    images.refresh()
    images.grid("unknown")
    assert "unoriented" not in images.get("unknown").info
