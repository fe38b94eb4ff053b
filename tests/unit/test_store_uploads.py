"""Uploaded images: checked, whole, and never in the place of another."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from store_samples import read, scan, store

from msklabel.errors import Conflict, StorageFull, UserError
from msklabel.imaging import ImageError


def test_upload(tmp_path: Path) -> None:
    studies = tmp_path / "s"
    scan(studies / "own.nii.gz")
    data = store(studies)
    new = scan(tmp_path / "new.nii.gz", seed=3)
    assert data.add_image("siteC/x.1", str(new), {"patient": "p"}) == "siteC/x.1"
    assert data.add_image(None, str(new), {}) == "new"
    np.testing.assert_array_equal(read(data.get_image_uri("siteC/x.1")), read(new))
    assert data.list_images() == ["new", "own", "siteC/x.1"]
    assert data.get_image_info("siteC/x.1")["patient"] == "p"
    assert data.add_image("siteC/x.1", str(new), {"more": 1}) == "siteC/x.1"
    for taken in ("siteC/x.1", "own"):
        with pytest.raises(Conflict, match="another image"):
            data.add_image(taken, str(scan(tmp_path / "other.nii.gz", seed=4)), {})
    with pytest.raises(Conflict, match="never deleted"):
        data.remove_image("own")
    data.remove_image("siteC/x.1")
    assert data.list_images() == ["new", "own"]
    assert (studies / "own.nii.gz").exists()


@pytest.mark.parametrize(
    "image_id", ["../x", "/x", "a/../x", "a\\b", "a\0b", ".x", "a/.x", "labels/x", "a//b", "a" * 300]
)
def test_upload_with_a_bad_id(tmp_path: Path, image_id: str) -> None:
    data = store(tmp_path / "s")
    file = scan(tmp_path / "scan.nii.gz")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="image id"):
        data.add_image(image_id, str(file), {})
    assert sorted(tmp_path.rglob("*")) == before


def test_upload_of_what_is_no_image(tmp_path: Path) -> None:
    data = store(tmp_path / "s")
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(scan(tmp_path / "scan.nii.gz").read_bytes()[:100])
    with pytest.raises(ImageError):
        data.add_image("x", str(broken), {})
    text = tmp_path / "x.txt"
    text.write_text("hello")
    with pytest.raises(UserError, match="expected one NIfTI"):
        data.add_image("x", str(text), {})
    assert data.list_images() == []


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_an_upload_may_not_point_to_another_file(tmp_path: Path, suffix: str) -> None:
    data = store(tmp_path / "s")
    secret = tmp_path / "secret.raw"
    secret.write_bytes(bytes(range(8)))
    file = tmp_path / f"x{suffix}"
    if suffix == ".nrrd":
        file.write_text(
            "NRRD0004\ntype: unsigned char\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n"
            "space: left-posterior-superior\nspace origin: (0,0,0)\n"
            f"space directions: (1,0,0) (0,1,0) (0,0,1)\ndata file: {secret}\n\n"
        )
    else:
        file.write_text(
            "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementSpacing = 1 1 1\n"
            f"ElementType = MET_UCHAR\nElementDataFile = {secret}\n"
        )
    with pytest.raises(UserError, match="in another file"):
        data.add_image("x", str(file), {})
    scan(tmp_path / "s" / "a.nii.gz")
    with pytest.raises(UserError, match="in another file"):
        data.save_label("a", str(file), "final", {})


def test_upload_to_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = store(tmp_path / "s")
    file = scan(tmp_path / "scan.nii.gz")
    before = sorted(path for path in tmp_path.rglob("*") if path.suffix[:3] != ".db")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageFull):
            data.add_image("deep/er/x", str(file), {})
    assert sorted(path for path in tmp_path.rglob("*") if path.suffix[:3] != ".db") == before
    assert data.list_images() == []
