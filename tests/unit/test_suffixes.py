"""Suffixes in capital letters, as scanners and old Windows programs write them, mean what small ones do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from store_samples import SHAPE, TISSUES, blocks, read, scan, store, write

from msklabel.choose.simulate.scans import read_folder
from msklabel.imaging.names import plain_name
from msklabel.imaging.read import read_labels, read_scan

SUFFIXES = (".MHA", ".Mha", ".MHD", ".NRRD", ".NHDR", ".NII", ".Nii", ".NII.GZ", ".Nii.gz", ".nii.GZ")
ONE_FILE = tuple(suffix for suffix in SUFFIXES if suffix not in (".MHD", ".NHDR"))


def renamed(file: Path, suffix: str) -> Path:
    """A file under the same name with another spelling of its suffix."""
    return file.rename(file.with_name(file.name.removesuffix(suffix.lower()) + suffix))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_scan_is_listed_read_labelled_and_named_for_viewers(tmp_path: Path, suffix: str) -> None:
    made = scan(tmp_path / "s" / f"a{suffix.lower()}")
    expected, grid = read(made), read_scan(made).affine
    file = renamed(made, suffix)
    found = read_scan(file)
    np.testing.assert_array_equal(found.array[0], expected)
    np.testing.assert_allclose(found.affine, grid)
    data = store(tmp_path / "s")
    assert data.list_images() == ["a"] and data.is_readable("a")
    assert data.get_image_uri("a") == str(file)
    assert data.get_image_info("a")["name"] == f"a{suffix.lower()}"
    data.save_label("a", str(write(tmp_path / "label.nrrd", blocks(1, 5))), "final", {"model": TISSUES.name})
    assert read_labels(data.get_label_uri("a", "final")).present() == [1, 5]


@pytest.mark.parametrize("suffix", ONE_FILE)
def test_a_label_and_an_uploaded_scan_are_taken(tmp_path: Path, suffix: str) -> None:
    scan(tmp_path / "s" / "a.nii.gz")
    data = store(tmp_path / "s")
    label = renamed(write(tmp_path / f"label{suffix.lower()}", blocks(2, 7)), suffix)
    data.save_label("a", str(label), "final", {"model": TISSUES.name})
    assert read_labels(data.get_label_uri("a", "final")).present() == [2, 7]
    new = renamed(scan(tmp_path / f"new{suffix.lower()}", seed=3), suffix)
    assert data.add_image(None, str(new), {}) == "new"
    assert data.get_image_uri("new") == str(tmp_path / "s" / f"new{suffix.lower()}")
    assert data.store.images.grid("new").shape == SHAPE


@pytest.mark.parametrize("suffix", ONE_FILE)
def test_a_simulation_reads_scans_and_labels(tmp_path: Path, suffix: str) -> None:
    renamed(scan(tmp_path / "images" / f"a{suffix.lower()}"), suffix)
    renamed(write(tmp_path / "truth" / f"a{suffix.lower()}", blocks(3)), suffix)
    (case,) = read_folder(TISSUES, tmp_path)
    assert case.scan.shape == SHAPE
    assert np.unique(case.labels).tolist() == [0, 3]


@pytest.mark.parametrize(("beside", "suffix"), [("a.NII", ".NII.GZ"), ("a.nii", ".Nii.gz"), ("a.Nii", ".nii.gz")])
def test_the_voxels_are_its_own(tmp_path: Path, beside: str, suffix: str) -> None:
    file = renamed(write(tmp_path / "a.nii.gz", np.full(SHAPE, 2, np.uint8)), suffix)
    write(tmp_path / "b.nii", np.full(SHAPE, 1, np.uint8)).rename(tmp_path / beside)
    assert read_labels(file).present() == [2]
    assert read_labels(tmp_path / beside).present() == [1]


def test_the_plain_name_keeps_all_but_the_suffix() -> None:
    assert [plain_name(name) for name in ("A.NII.GZ", "A.B.MHA", "A", "A.X")] == ["A.nii.gz", "A.B.mha", "A", "A.X"]
