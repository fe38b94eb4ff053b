"""A label drawn on a radiograph in a viewer lies on its pixels, whatever the viewer takes for their size."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image
from radiograph_samples import COLUMNS, ROWS, write_cr

from msklabel.catalogue import load_catalogue
from msklabel.errors import UserError
from msklabel.imaging import ImageError, spacing_mm
from msklabel.imaging.radiograph import viewer_affine
from msklabel.imaging.read import read_labels, read_scan
from msklabel.learn.versions import Versions
from msklabel.networks import build_network, weights_of
from msklabel.predict.served import ServedModel
from msklabel.predict.task import ModelTask
from msklabel.store.datastore import MskDatastore

SYSTEM = load_catalogue(names=("hip_radiograph",), profile="demo")["hip_radiograph"]


def png(studies: Path) -> Path:
    """A PNG that does not know its pixel size, which is noted beside it."""
    Image.fromarray(np.arange(ROWS * COLUMNS, dtype=np.uint8).reshape(ROWS, COLUMNS)).save(studies / "hip.png")
    (studies / "hip.json").write_text(json.dumps({"spacing_mm": [0.1, 0.2]}))
    return studies / "hip.png"


def cr(studies: Path, **attributes: Any) -> Path:
    write_cr(studies / "hip.dcm", **attributes)
    return studies / "hip.dcm"


def magnified(studies: Path) -> Path:
    return cr(studies, PixelSpacing=None, ImagerPixelSpacing=[0.2, 0.1], EstimatedRadiographicMagnificationFactor=1.25)


def noted(studies: Path) -> Path:
    file = cr(studies, PixelSpacing=None)
    (studies / "hip.json").write_text(json.dumps({"spacing_mm": [0.1, 0.2]}))
    return file


def drawn_in_viewer(image: Path, folder: Path, change: str = "") -> tuple[Path, np.ndarray]:
    """A label as 3D Slicer saves it: on the grid on which ITK reads the image."""
    seen = sitk.ReadImage(str(image))
    seen = sitk.JoinSeries(seen) if seen.GetDimension() == 2 else seen
    array = np.zeros((1, ROWS, COLUMNS), np.uint8)
    array[0, 1, 2:5], array[0, 3, 1] = 1, 5
    label = sitk.GetImageFromArray(array)
    label.CopyInformation(seen)
    if change == "shifted":
        label.SetOrigin([place + step for place, step in zip(seen.GetOrigin(), seen.GetSpacing(), strict=True)])
    if change == "finer":
        label.SetSpacing([step / 2 for step in seen.GetSpacing()])
    if change == "flipped":
        label.SetDirection([-1, 0, 0, 0, 1, 0, 0, 0, 1])
    sitk.WriteImage(label, str(folder / "label.nrrd"))
    return folder / "label.nrrd", array.T


@pytest.mark.parametrize("make", [png, cr, magnified, noted])
def test_a_label_drawn_in_a_viewer_is_stored_on_the_pixels_of_the_scan(make, tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    image = make(studies)
    label, drawn = drawn_in_viewer(image, tmp_path)
    store = MskDatastore(studies, tmp_path / "state", {SYSTEM.name: SYSTEM})
    store.save_label("hip", str(label), "final", {})
    stored, scan = read_labels(store.get_label_uri("hip", "final")), read_scan(image)
    np.testing.assert_array_equal(stored.array, drawn)
    np.testing.assert_allclose(stored.affine, scan.affine, atol=1e-5)
    assert scan.spacing_mm[0] != 1  # so that areas are measured in true mm


@pytest.mark.parametrize("change", ["shifted", "finer", "flipped"])
@pytest.mark.parametrize("make", [png, noted])
def test_a_label_that_lies_elsewhere_is_still_refused(make, change: str, tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    label, _ = drawn_in_viewer(make(studies), tmp_path, change)
    store = MskDatastore(studies, tmp_path / "state", {SYSTEM.name: SYSTEM})
    with pytest.raises(UserError, match="does not lie on its scan"):
        store.save_label("hip", str(label), "final", {})


def test_notes_that_come_or_change_beside_a_radiograph_are_read(tmp_path: Path) -> None:
    image = png(tmp_path)
    notes = tmp_path / "hip.json"
    notes.unlink()
    data = MskDatastore(tmp_path, tmp_path / ".msklabel", {SYSTEM.name: SYSTEM})
    images = data.store.images
    with pytest.raises(ImageError, match=r"to a file hip\.json beside it"):
        images.grid("hip")
    for step_mm in (0.1, 0.25):
        notes.write_text(json.dumps({"spacing_mm": [step_mm, step_mm]}))
        assert spacing_mm(images.grid("hip").affine) == pytest.approx((step_mm, step_mm, 1))
    assert images.unreadable() == {}
    notes.write_text(json.dumps({"spacing_mm": [0.5, 0.5], "side": "L"}))
    images.refresh()
    assert images.get("hip").shape is None
    assert images.files("hip") == [image, notes]


def test_only_radiographs_have_a_grid_of_viewers(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.Image(4, 4, 4, sitk.sitkInt16), str(tmp_path / "ct.nii.gz"))
    assert viewer_affine(tmp_path / "ct.nii.gz") is None
    assert viewer_affine(tmp_path) is None
    np.testing.assert_allclose(viewer_affine(png(tmp_path)), np.diag([-1.0, -1, 1, 1]))


def served(tmp_path: Path) -> ModelTask:
    """The demo profile's network with random weights, published as a version."""
    torch.manual_seed(3)
    versions = Versions(tmp_path / "models")
    version = versions.add(SYSTEM, [weights_of(build_network(SYSTEM))], {})
    versions.publish(SYSTEM.name, version.name)
    return ModelTask(SYSTEM, ServedModel(SYSTEM, versions, "cpu"))


def test_a_predicted_mask_lies_where_viewers_put_the_pixels_and_can_be_submitted(tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(40, 255, (150, 130), dtype=np.uint8)).save(studies / "hip.png")
    (studies / "hip.json").write_text(json.dumps({"spacing_mm": [1.2, 1.2], "side": "R"}))
    file, _ = served(tmp_path)({"image": str(studies / "hip.png"), "result_extension": ".nrrd"})
    mask = sitk.ReadImage(file)
    assert mask.GetSize() == (130, 150, 1)
    assert mask.GetSpacing()[:2] == (1.0, 1.0)  # as ITK reads the PNG
    store = MskDatastore(studies, tmp_path / "state", {SYSTEM.name: SYSTEM})
    store.save_label("hip", file, "final", {"model": SYSTEM.name})
    assert read_labels(store.get_label_uri("hip", "final")).array.any()


@pytest.mark.real
def test_a_real_hip_radiograph_gets_a_mask_on_its_own_pixels(tmp_path: Path) -> None:
    image = Path(os.environ.get("MSKLABEL_REAL_DATA", "../shared/data")) / "xr_hip" / "hip_cr_j2k.dcm"
    if not image.is_file():
        pytest.skip("needs xr_hip of MSKLABEL_REAL_DATA")
    file, params = served(tmp_path)({"image": str(image), "result_extension": ".nrrd"})
    mask, seen = sitk.ReadImage(file), sitk.ReadImage(str(image))
    assert sorted(mask.GetSize()) == [1, 1760, 2140]
    assert mask.GetSize() == seen.GetSize()
    np.testing.assert_allclose(mask.GetSpacing(), seen.GetSpacing(), atol=1e-6)
    assert read_scan(image).spacing_mm[:2] == pytest.approx((0.2, 0.2))  # which ITK does not know
    np.testing.assert_allclose(mask.GetOrigin(), seen.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(mask.GetDirection(), seen.GetDirection(), atol=1e-6)
    assert set(np.unique(sitk.GetArrayFromImage(mask))) <= set(range(6))
    assert params["label_names"] == SYSTEM.label_indices
