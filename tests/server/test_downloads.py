"""Whatever the server lists, a viewer on another machine can open what it gets."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from live import DRAFT, Site, wait_for

from msklabel.imaging.read import read_scan

SUFFIXES = (".MHA", ".Nii.gz", ".NRRD")
DETACHED = (".mhd", ".nhdr", ".MHD")


@pytest.fixture(scope="module")
def odd_files(open_site: Site) -> Iterator[dict[str, Path]]:
    """Copies of a scan in other formats among the studies, by image id, until the tests are done."""
    folder = open_site.studies / "odd"
    folder.mkdir()
    files = {}
    for suffix in (*SUFFIXES, *DETACHED):
        written = folder / f"scan_{suffix[1:4]}{suffix.lower()}"
        sitk.WriteImage(sitk.ReadImage(str(open_site.studies / "hip_0.nii.gz")), str(written))
        files[f"odd/scan_{suffix[1:4]}"] = written.rename(folder / f"scan_{suffix[1:4]}{suffix}")
    images = "/datastore/?output=all"
    wait_for(lambda: files.keys() <= open_site.ask("GET", images).json()["objects"].keys(), 20)
    yield files
    shutil.rmtree(folder)
    wait_for(lambda: not files.keys() & open_site.ask("GET", images).json()["objects"].keys(), 20)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_suffix_in_capital_letters_is_small_for_viewers(
    open_site: Site, odd_files: dict[str, Path], suffix: str
) -> None:
    image = f"odd/scan_{suffix[1:4]}"
    answer = open_site.ask("GET", f"/datastore/image?image={image}")
    assert (answer.status_code, answer.content) == (200, odd_files[image].read_bytes())
    assert f'filename="scan_{suffix[1:4]}{suffix.lower()}"' in answer.headers["content-disposition"]
    draft = open_site.ask("POST", f"/infer/{DRAFT}?image={image}&output=image")
    assert draft.status_code == 200, draft.text


@pytest.mark.parametrize("suffix", DETACHED)
def test_a_header_whose_voxels_are_in_another_file_comes_with_them(
    open_site: Site, odd_files: dict[str, Path], tmp_path: Path, suffix: str
) -> None:
    name = f"scan_{suffix[1:4]}"
    answer = open_site.ask("GET", f"/datastore/image?image=odd/{name}")
    assert answer.status_code == 200, answer.text
    assert f'filename="{name}.nrrd"' in answer.headers["content-disposition"]
    (tmp_path / "got.nrrd").write_bytes(answer.content)
    got, expected = read_scan(tmp_path / "got.nrrd"), read_scan(odd_files[f"odd/{name}"])
    np.testing.assert_array_equal(got.array, expected.array)
    np.testing.assert_allclose(got.affine, expected.affine)
    wait_for(lambda: not open_site.left_over(), 10)
