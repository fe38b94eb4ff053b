"""``output=dicom_seg``: the result of an inference as a DICOM Segmentation of the series that was sent."""

from __future__ import annotations

import io
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import requests
from dicom_samples import series
from live import DRAFT, IMAGES, SYSTEM, Site

from msklabel.catalogue import load_catalogue
from msklabel.imaging.dicom import series_files
from msklabel.imaging.read import read_labels, read_scan
from msklabel.imaging.seg_read import read_seg
from msklabel_phantoms.write import generate

LABELS = load_catalogue()[SYSTEM].labels


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom of a hip on CT, as a series whose files run against its slices."""
    folder = tmp_path_factory.mktemp("series")
    values = generate(SYSTEM, 7, 0, shape=(48, 36, 4), spacing_mm=(8, 8, 5)).image[0]
    stored = np.rint(np.clip(values, -1024, 3000) + 1024)[::-1, ::-1]  # from RAS to the LPS of an upright series
    series(folder, stored.shape, spacing_mm=(8, 8, 5), array=stored)
    return folder


def sent(site: Site, folder: Path) -> str:
    """The id of a session that holds a series."""
    files = [("files", (file.name, file.read_bytes())) for file in sorted(folder.iterdir())]
    answer = site.ask("PUT", "/session/", files=files)
    assert answer.ok, answer.text
    return str(answer.json()["session_id"])


def infer(site: Site, model: str, query: str) -> requests.Response:
    return site.ask("POST", f"/infer/{model}?{query}")


def test_it_holds_the_voxels_and_codes_of_the_result(open_site: Site, scan: Path, tmp_path: Path) -> None:
    session = sent(open_site, scan)
    answer = infer(open_site, DRAFT, f"session_id={session}&output=dicom_seg")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/dicom"), answer.text[:300]
    assert f'filename="{DRAFT}.dcm"' in answer.headers["content-disposition"]
    (tmp_path / "label.nii.gz").write_bytes(infer(open_site, DRAFT, f"session_id={session}&output=image").content)
    expected = read_labels(tmp_path / "label.nii.gz")
    assert len(np.unique(expected.array)) > 3
    found = pydicom.dcmread(io.BytesIO(answer.content))
    sources = [pydicom.dcmread(file, stop_before_pixels=True) for file in series_files(scan)]
    np.testing.assert_array_equal(
        read_seg(found, sources, read_scan(scan).affine, LABELS).array, expected.array, "by our own reader"
    )
    segmentation = highdicom.seg.Segmentation.from_dataset(found)
    frames = segmentation.get_pixels_by_source_instance(
        [str(source.SOPInstanceUID) for source in sources], assert_missing_frames_are_empty=True
    )
    codes = {label.code: label.index for label in LABELS.values()}
    for number in segmentation.segment_numbers:
        described = segmentation.get_segment_description(number)
        code = described.segmented_property_type
        index = codes[f"{code.scheme_designator}:{code.value}"]
        np.testing.assert_array_equal(frames[..., number - 1].transpose(2, 1, 0), expected.array == index)
        assert described.algorithm_type.value == "AUTOMATIC"
        assert described.algorithm_identification.name == DRAFT
    assert open_site.left_over() == []


def test_what_is_no_series_is_told_so_before_anybody_waits(open_site: Site) -> None:
    answer = infer(open_site, DRAFT, f"image={IMAGES[0]}&output=dicom_seg")
    assert answer.status_code == 400
    assert "is no DICOM series" in answer.json()["detail"]


def test_a_label_of_no_system_has_no_codes(open_site: Site, scan: Path) -> None:
    answer = infer(open_site, "interpolate", f"session_id={sent(open_site, scan)}&output=dicom_seg")
    assert answer.status_code == 400
    assert "belongs to no system" in answer.json()["detail"]


def test_images_without_a_frame_of_reference_are_told_so(open_site: Site, scan: Path, tmp_path: Path) -> None:
    for file in scan.iterdir():
        image = pydicom.dcmread(file)
        del image.FrameOfReferenceUID
        image.save_as(tmp_path / file.name)
    answer = infer(open_site, DRAFT, f"session_id={sent(open_site, tmp_path)}&output=dicom_seg")
    assert answer.status_code == 400
    assert "frame of reference" in answer.json()["detail"]
    assert open_site.left_over() == []
