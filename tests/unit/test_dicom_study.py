"""From the command line: DICOM series of one study, a 4D file or separate files are one scan of several channels."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from msklabel.catalogue import load_catalogue
from msklabel.cli import main
from msklabel.imaging.read import read_labels
from msklabel.learn.versions import Versions
from msklabel.networks import build_network, weights_of
from msklabel_phantoms.phantom import Phantom
from msklabel_phantoms.write import generate

SYSTEM = load_catalogue(names=("thigh_dixon",), profile="demo")["thigh_dixon"]
DESCRIPTIONS = ("t1_vibe_dixon_tra_opp", "t1_vibe_dixon_tra_in")
REAL = Path(os.environ.get("MSKLABEL_REAL_DATA", "../shared/data")) / "dicom_odd"


def series(folder: Path, array: np.ndarray, phantom: Phantom, number: int, first: int = 0) -> None:
    """Write a channel (X, Y, Z), RAS, as the axial slices of an MR series, from one slice of the phantom on."""
    folder.mkdir(parents=True, exist_ok=True)
    x_mm, y_mm, z_mm = phantom.spacing_mm
    corner = phantom.affine @ (array.shape[0] - 1, array.shape[1] - 1, first, 1)  # first pixel: right, anterior
    for place in range(array.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = MRImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = f"1.2.9.{number}.{first + place + 1}"
        data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        data.SeriesInstanceUID, data.StudyInstanceUID = f"1.2.9.{number}", "1.2.9"
        data.SeriesDescription, data.PatientID, data.Modality = DESCRIPTIONS[number], "P1", "MR"
        data.ImageType, data.InstanceNumber = ["ORIGINAL", "PRIMARY", "M"], place + 1
        data.Rows, data.Columns, data.SamplesPerPixel = array.shape[1], array.shape[0], 1
        data.PhotometricInterpretation, data.PixelSpacing, data.SliceThickness = "MONOCHROME2", [y_mm, x_mm], z_mm
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.ImagePositionPatient = [-corner[0], -corner[1], corner[2] + place * z_mm]
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 0
        data.PixelData = array[::-1, ::-1, place].T.astype(np.uint16).tobytes()
        pydicom.dcmwrite(folder / f"{number}_{999 - place}.dcm", data, write_like_original=False)


def study(folder: Path, phantom: Phantom, slices: slice = slice(None)) -> Path:
    for number, channel in enumerate(phantom.image):
        series(folder, channel[..., slices], phantom, number, slices.start or 0)
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line in this process; its exit status."""
    monkeypatch.setattr(sys, "argv", ["msklabel", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return generate("thigh_dixon", 3, 0, shape=(64, 40, 26), spacing_mm=(7, 7, 12))


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with a version of random weights."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("state")
    versions = Versions(folder / "models")
    versions.publish(SYSTEM.name, versions.add(SYSTEM, [weights_of(build_network(SYSTEM))], {}).name)
    return folder


def test_three_ways_to_give_the_channels_give_one_mask(
    phantom: Phantom, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study(tmp_path / "study", phantom)
    both = np.moveaxis(phantom.image, 0, -1).astype(np.int16)
    nib.save(nib.Nifti1Image(both, phantom.affine), tmp_path / "both.nii.gz")
    for name, channel in zip(("OP", "IP"), phantom.image, strict=True):
        nib.save(nib.Nifti1Image(channel.astype(np.int16), phantom.affine), tmp_path / f"leg_{name}.nii.gz")
    masks = []
    for number, source in enumerate(("study", "both.nii.gz", "leg_IP.nii.gz")):
        out = tmp_path / f"mask_{number}.nii.gz"
        options = ["--model", SYSTEM.name, "--profile", "demo", "--state", str(state), "-o", str(out)]
        assert run(monkeypatch, "infer", str(tmp_path / source), *options) == 0
        masks.append(read_labels(out))
    np.testing.assert_array_equal(masks[1].array, masks[2].array)
    np.testing.assert_array_equal(masks[0].array[::-1, ::-1], masks[1].array)  # DICOM runs left and posterior
    np.testing.assert_allclose(masks[1].affine, phantom.affine, atol=1e-3)
    assert masks[0].array.any()


def test_stacks_of_a_study_are_stitched_and_segmented(
    phantom: Phantom, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower, upper = study(tmp_path / "lower", phantom, slice(0, 15)), study(tmp_path / "upper", phantom, slice(10, 26))
    whole = tmp_path / "whole.nii.gz"
    assert run(monkeypatch, "stitch", str(upper), str(lower), "-o", str(whole)) == 0
    stitched = nib.load(whole)
    assert stitched.shape == (64, 40, 26, 2)
    turned = np.asarray(stitched.dataobj)[::-1, ::-1]
    np.testing.assert_allclose(np.moveaxis(turned, -1, 0), phantom.image, atol=1.01)
    options = ["--model", SYSTEM.name, "--profile", "demo", "--state", str(state)]
    assert run(monkeypatch, "infer", str(whole), *options, "-o", str(tmp_path / "mask.nii.gz")) == 0
    assert read_labels(tmp_path / "mask.nii.gz").array.shape == (64, 40, 26)


def test_a_study_without_a_channel_is_one_sentence(
    phantom: Phantom, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    series(tmp_path / "study", phantom.image[1], phantom, 1)
    options = ["--model", SYSTEM.name, "--profile", "demo", "--state", str(state)]
    assert run(monkeypatch, "infer", str(tmp_path / "study"), *options, "-o", str(tmp_path / "mask.nii.gz")) == 2
    assert "out_of_phase" in capsys.readouterr().err
    assert not (tmp_path / "mask.nii.gz").exists()


@pytest.mark.real
@pytest.mark.parametrize(
    ("folder", "says"),
    [
        ("gantrytilting/001", "the gantry was tilted"),
        ("sliceincrement/001", "slices 5.00 to 10.00 mm apart; one is missing"),
        ("sliceincrement/002", "slices 0.75 to 1.50 mm apart; one is missing"),
        ("slicecount/001", "this is MR"),
        ("sliceorientation/001", "slices of different orientations in one series"),
        ("notavolume/001", "two slices at the same position"),
    ],
)
def test_odd_real_series_are_refused_in_one_sentence(
    folder: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not REAL.is_dir():
        pytest.skip("needs dicom_odd of MSKLABEL_REAL_DATA")
    options = ["--model", "hip_tissue_ct_threshold", "-o", str(tmp_path / "mask.nii.gz")]
    assert run(monkeypatch, "infer", str(REAL / folder), *options) == 2
    said = capsys.readouterr().err
    assert said.startswith("msklabel: ")
    assert "Traceback" not in said
    assert says in " ".join(said.split())
    assert not (tmp_path / "mask.nii.gz").exists()
