"""Images of several channels: which files belong together, and what is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from store_samples import DIXON, TISSUES, blocks, scan, store, write

from msklabel.errors import Conflict
from msklabel.imaging import ImageError
from msklabel.imaging.channels import (
    CHANNELS_FACT,
    channel_files,
    channel_of,
    group_channels,
    named_channels,
    read_channels,
)

WANTED = ("out_of_phase", "in_phase")


def volume(value: int, shape: tuple[int, ...] = (4, 3, 2)) -> np.ndarray:
    return np.full(shape, value, np.int16)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("p1_out_of_phase.nii.gz", ("p1", "out_of_phase")),
        ("p1_OP.nii.gz", ("p1", "out_of_phase")),
        ("p1_opp.nrrd", ("p1", "out_of_phase")),
        ("p1_Out.mha", ("p1", "out_of_phase")),
        ("p1-opposed-phase.nii", ("p1", "out_of_phase")),
        ("p1_in_phase.nii.gz", ("p1", "in_phase")),
        ("p1_IP.nii.gz", ("p1", "in_phase")),
        ("p1_in.nii.gz", ("p1", "in_phase")),
        ("left_leg_3_W.nii.gz", ("left_leg_3", "water")),
        ("p1.Fat.nii.gz", ("p1", "fat")),
        ("water.nii.gz", ("", "water")),
        ("p1_t2.nii.gz", ("p1", "t2")),
        ("p1.nii.gz", None),
        ("tip.nii.gz", None),
        ("scanf.nii.gz", None),
        ("p1_fat_fraction.nii.gz", None),
    ],
)
def test_the_channel_is_what_a_name_ends_in(name: str, expected: tuple[str, str] | None) -> None:
    assert channel_of(name, ["t2"]) == expected


def test_two_channels_of_one_name_make_a_group_and_one_does_not() -> None:
    names = ["b_IP.nii.gz", "a_in.nii", "a_OUT.nii", "b.nii.gz", "c_W.nii.gz", "c_F.nii.gz", "readme_in.txt", "d_F.nii"]
    assert group_channels(names) == {
        "a": {"out_of_phase": ["a_OUT.nii"], "in_phase": ["a_in.nii"]},
        "c": {"water": ["c_W.nii.gz"], "fat": ["c_F.nii.gz"]},
    }


@pytest.mark.parametrize("source", ["p1", "p1_IP.nii.gz", "p1_out_of_phase.nrrd", "."])
def test_files_of_one_image_are_read_in_the_order_wanted(tmp_path: Path, source: str) -> None:
    write(tmp_path / "p1_IP.nii.gz", volume(7))
    write(tmp_path / "p1_out_of_phase.nrrd", volume(3))
    write(tmp_path / "other.nii.gz", volume(0))
    read = read_channels(tmp_path / source, WANTED)
    assert read.array[:, 0, 0, 0].tolist() == [3, 7]
    assert read.shape == (4, 3, 2)
    assert read.facts[CHANNELS_FACT] == "out_of_phase in_phase"
    assert read_channels(tmp_path / source, WANTED[::-1]).array[:, 0, 0, 0].tolist() == [7, 3]


def test_channels_may_be_named_one_by_one(tmp_path: Path) -> None:
    files = {
        "in_phase": write(tmp_path / "a.nii.gz", volume(1)),
        "out_of_phase": write(tmp_path / "b.nii.gz", volume(2)),
    }
    assert read_channels(files, WANTED).array[:, 0, 0, 0].tolist() == [2, 1]
    assert {name: int(part[0, 0, 0]) for name, part in named_channels(read_channels(files)).items()} == {
        "in_phase": 1,
        "out_of_phase": 2,
    }


def test_a_4d_file_holds_its_channels_in_order(tmp_path: Path) -> None:
    image = sitk.JoinSeries([sitk.GetImageFromArray(volume(value).T) for value in (5, 6)])
    sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))
    read = read_channels(tmp_path / "a.nii.gz", WANTED)
    assert read.array[:, 0, 0, 0].tolist() == [5, 6]
    assert named_channels(read) == {}
    with pytest.raises(ImageError, match=r"a.nii.gz: expected 3 channels \(a, b, c\), got 2"):
        read_channels(tmp_path / "a.nii.gz", ("a", "b", "c"))


@pytest.mark.parametrize(
    ("names", "source", "sentence"),
    [
        (
            ["p_OP.nii.gz", "p_W.nii.gz"],
            "p_OP.nii.gz",
            "p_OP.nii.gz: missing channel in_phase; found out_of_phase, water",
        ),
        (["p_OP.nii.gz"], "p_OP.nii.gz", "p_OP.nii.gz: missing channel in_phase; found out_of_phase"),
        (["p_W.nii.gz", "p_F.nii.gz"], "p", "p: missing channels out_of_phase, in_phase; found water, fat"),
        (
            ["p_OP.nii.gz", "p_IP.nii.gz", "p_in.nii.gz"],
            "p",
            "p: p_IP.nii.gz and p_in.nii.gz are both the channel in_phase",
        ),
        (["p.nii.gz"], "p.nii.gz", r"p.nii.gz: expected 2 channels \(out_of_phase, in_phase\), got 1"),
        ([], "p", "p: no such file"),
    ],
)
def test_a_channel_missing_or_twice_is_named(tmp_path: Path, names: list[str], source: str, sentence: str) -> None:
    for name in names:
        write(tmp_path / name, volume(1))
    with pytest.raises(ImageError, match=rf"^{sentence}$"):
        read_channels(tmp_path / source, WANTED)


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "origin_mm", "angle", "difference"),
    [
        ((4, 3, 3), (1, 1, 2), (0, 0, 0), 0, "p_IP.nii.gz has 4 x 3 x 3 voxels, p_OP.nii.gz has 4 x 3 x 2"),
        ((4, 3, 2), (1.1, 1, 2), (0, 0, 0), 0, "p_IP.nii.gz has voxels of 1.1 x 1 x 2 mm, p_OP.nii.gz of 1 x 1 x 2 mm"),
        ((4, 3, 2), (1, 1, 2), (0, 5, 0), 0, "p_IP.nii.gz is shifted by 5 mm against p_OP.nii.gz"),
        ((4, 3, 2), (1, 1, 2), (0, 0, 0), 5, "p_IP.nii.gz is rotated by 5 degrees against p_OP.nii.gz"),
        ((4, 3, 2), (1, 1, 2), (0, 0, 0), 180, "p_IP.nii.gz has its axes along RAS, p_OP.nii.gz along LPS"),
    ],
)
def test_channels_on_different_grids_are_refused_with_the_difference(
    tmp_path: Path,
    shape: tuple[int, ...],
    spacing_mm: tuple[float, ...],
    origin_mm: tuple[float, ...],
    angle: float,
    difference: str,
) -> None:
    write(tmp_path / "p_OP.nii.gz", volume(1), (1, 1, 2), (0, 0, 0))
    image = sitk.GetImageFromArray(volume(1, shape).T)
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    image.SetSpacing(spacing_mm)
    image.SetOrigin(origin_mm)
    image.SetDirection([c, -s, 0, s, c, 0, 0, 0, 1])
    sitk.WriteImage(image, str(tmp_path / "p_IP.nii.gz"))
    with pytest.raises(ImageError) as refused:
        read_channels(tmp_path / "p", WANTED)
    assert str(refused.value) == f"{difference}; the channels of an image must lie on the same grid"


def test_a_system_of_one_channel_takes_any_one_file(tmp_path: Path) -> None:
    write(tmp_path / "p_W.nii.gz", volume(4))
    write(tmp_path / "p_F.nii.gz", volume(5))
    assert read_channels(tmp_path / "p_W.nii.gz", ["mr"]).array[:, 0, 0, 0].tolist() == [4]
    assert read_channels(tmp_path / "p_W.nii.gz", ["fat"]).array[:, 0, 0, 0].tolist() == [5]
    assert list(channel_files(tmp_path / "p_W.nii.gz")) == ["water", "fat"]


def series(
    folder: Path, description: str, value: int, uid: str, study: str = "1.2", image_type: str = "M", slices: int = 3
) -> None:
    """Write a small MR series; values rise with the slice."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(slices):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = MRImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = f"{uid}.{value}.{number + 1}"
        file = folder / f"{uid}-{value}-{9 - number}.dcm"
        data = FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        data.SeriesInstanceUID, data.StudyInstanceUID, data.SeriesDescription = uid, study, description
        data.PatientID, data.Modality, data.ImageType = "P7", "MR", ["ORIGINAL", "PRIMARY", image_type]
        data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 3, 4, 1, "MONOCHROME2"
        data.PixelSpacing, data.SliceThickness = [1, 1], 2
        data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 2 * number], [1, 0, 0, 0, 1, 0]
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 0
        data.PixelData = np.full((3, 4), value + number, np.uint16).tobytes()
        pydicom.dcmwrite(file, data, write_like_original=False)


@pytest.mark.parametrize(
    ("out_of_phase", "in_phase"),
    [
        ("t1_vibe_dixon_tra_opp", "t1_vibe_dixon_tra_in"),
        ("OutPhase: Ax LAVA Flex", "InPhase: Ax LAVA Flex"),
        ("Thigh out of phase", "Thigh in phase"),
        ("mDIXON OP", "mDIXON IP"),
    ],
)
@pytest.mark.parametrize("flat", [True, False], ids=["one folder", "a folder each"])
def test_the_series_of_a_study_are_told_apart_by_description(
    tmp_path: Path, out_of_phase: str, in_phase: str, flat: bool
) -> None:
    for uid, (description, value) in enumerate([("localizer", 0), (in_phase, 20), (out_of_phase, 10)], start=1):
        series(tmp_path / "study" / ("" if flat else str(uid)), description, value, f"1.2.{uid}")
    read = read_channels(tmp_path / "study", WANTED)
    assert read.array[:, 0, 0].tolist() == [[10, 11, 12], [20, 21, 22]]
    assert read.facts["patient"] == "P7"
    with pytest.raises(ImageError, match="study: missing channels water, fat; found out_of_phase, in_phase"):
        read_channels(tmp_path / "study", ("water", "fat"))


def test_channels_within_one_series_are_told_apart_by_image_type(tmp_path: Path) -> None:
    for image_type, value in [("W", 10), ("F", 20), ("IP", 30), ("OP", 40)]:
        series(tmp_path / "s", "mDIXON_all", value, "1.2.3", image_type=image_type)
    assert read_channels(tmp_path / "s").facts[CHANNELS_FACT] == "out_of_phase in_phase water fat"
    assert read_channels(tmp_path / "s", ("fat", "water")).array[:, 0, 0, 0].tolist() == [20, 10]


@pytest.mark.parametrize(
    ("second", "study", "slices", "sentence"),
    [
        ("dixon_in", "1.3", 3, "s: series of 2 studies; put each study in a folder of its own"),
        ("dixon_in", "1.2", 2, "series in_phase has 4 x 3 x 2 voxels, series out_of_phase has 4 x 3 x 3"),
        ("dixon_opp", "1.2", 3, "s: 2 DICOM series in one folder"),
    ],
)
def test_series_that_do_not_make_one_image_are_refused(
    tmp_path: Path, second: str, study: str, slices: int, sentence: str
) -> None:
    series(tmp_path / "s", "dixon_opp", 10, "1.2.1")
    series(tmp_path / "s", second, 20, "1.2.2", study, slices=slices)
    with pytest.raises(ImageError, match=sentence):
        read_channels(tmp_path / "s")


def test_one_channel_in_two_series_is_refused(tmp_path: Path) -> None:
    for uid, description in enumerate(["dixon_opp", "dixon_in", "repeat_in"]):
        series(tmp_path / "s", description, 10, f"1.2.{uid}")
    with pytest.raises(ImageError, match="s: series in_phase 1 and series in_phase 2 are both the channel in_phase"):
        read_channels(tmp_path / "s", WANTED)


def test_a_fat_fraction_or_fat_saturated_series_is_no_fat_channel(tmp_path: Path) -> None:
    for uid, description in enumerate(["dixon_F", "dixon fat fraction", "t2 tse fat sat", "dixon_W", "FatFrac"]):
        series(tmp_path / "s", description, 10 * uid, f"1.2.{uid}")
    assert read_channels(tmp_path / "s", ("water", "fat")).array[:, 0, 0, 0].tolist() == [30, 0]


def test_the_store_lists_channels_as_one_image(tmp_path: Path) -> None:
    for name in ("p1_OP", "p1_IP", "site/p2_in_phase", "site/p2_opp", "site/p3/water", "site/p3/fat", "p4"):
        scan(tmp_path / f"{name}.nii.gz")
    data = store(tmp_path, DIXON, TISSUES)
    assert data.list_images() == ["p1", "p4", "site/p2", "site/p3"]
    assert data.get_image_uri("p1") == str(tmp_path / "p1_OP.nii.gz")
    assert data.get_image_uri("site/p3") == str(tmp_path / "site" / "p3" / "water.nii.gz")
    label = write(tmp_path.parent / "label.nii.gz", blocks(1, 2))
    data.save_label("p1", str(label), "final", {"model": "thigh_dixon"})
    (pair,) = data.training_pairs("thigh_dixon")
    assert (pair.image_id, pair.image) == ("p1", tmp_path / "p1_OP.nii.gz")
    assert len(read_channels(pair.image, DIXON.channels).array) == 2
    image = data.store.images.get("p1")
    data.store.images.refresh()
    assert data.store.images.get("p1").shape == image.shape == [8, 7, 5]  # still known, so not read again


def test_an_archive_holds_all_channels_of_an_image(tmp_path: Path) -> None:
    for name in ("p1_OP", "p1_IP", "p2"):
        scan(tmp_path / "s" / f"{name}.nii.gz")
    data = store(tmp_path / "s", DIXON, TISSUES)
    label = write(tmp_path / "label.nii.gz", blocks(1, 2))
    data.save_label("p1", str(label), "final", {"model": "thigh_dixon"})
    with zipfile.ZipFile(data.get_dataset_archive(None)) as archive:
        images = sorted(name for name in archive.namelist() if name.startswith("image/"))
    assert images == ["image/p1_IP.nii.gz", "image/p1_OP.nii.gz"]


def test_the_store_notices_a_change_of_any_channel(tmp_path: Path) -> None:
    scan(tmp_path / "p1_OP.nii.gz")
    scan(tmp_path / "p1_IP.nii.gz")
    data = store(tmp_path, DIXON)
    assert data.store.images.grid("p1").shape == (8, 7, 5)
    write(tmp_path / "p1_IP.nii.gz", volume(1))
    with pytest.raises(ImageError, match="same grid"):
        data.store.images.grid("p1")


def test_files_stay_apart_where_no_system_has_several_channels(tmp_path: Path) -> None:
    for name in ("p1_OP", "p1_IP"):
        scan(tmp_path / f"{name}.nii.gz")
    assert store(tmp_path, TISSUES).list_images() == ["p1_IP", "p1_OP"]


def test_names_that_begin_with_nothing_stay_apart_in_the_studies_folder_itself(tmp_path: Path) -> None:
    for name in ("water", "fat", "p1_OP", "p1_IP", "p1"):
        scan(tmp_path / f"{name}.nii.gz")
    data = store(tmp_path, DIXON)
    assert data.list_images() == ["fat", "p1", "water"]
    assert data.get_image_uri("p1") == str(tmp_path / "p1.nii.gz")  # the file of that very name counts
    assert data.store.images.grid("water").shape == (8, 7, 5)


def test_an_upload_that_would_change_another_image_is_refused(tmp_path: Path) -> None:
    file = scan(tmp_path / "new" / "scan.nii.gz")
    studies = tmp_path / "studies"
    scan(studies / "p1_OP.nii.gz")
    data = store(studies, DIXON)
    with pytest.raises(Conflict, match=r"p1_IP.nii.gz and p1_OP.nii.gz are channels of one image"):
        data.add_image("p1_IP", str(file), {})
    assert data.list_images() == ["p1_OP"]
