"""What users and clients of MONAI Label find where they look for it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from store_samples import ABDUCTORS, TISSUES, blocks, listed, monai_label_folder, read, scan, store, write

from msklabel.errors import NotFound


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time and bytes of every file outside our own folders."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".msklabel" not in path.parts
    }


def test_an_existing_monai_label_folder_is_imported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in "abcd":
        scan(tmp_path / f"{name}.nii.gz")
    write(tmp_path / "labels" / "final" / "a.nii.gz", blocks(1, 2))
    write(tmp_path / "labels" / "original" / "a.nii.gz", blocks(1))
    write(tmp_path / "labels" / "final" / "b.nii.gz", blocks(2, 1).astype(np.int16))
    write(tmp_path / "labels" / "final" / "nobody.nii.gz", blocks(1))
    write(tmp_path / "labels" / "final" / "c.nii.gz", blocks(99))
    (tmp_path / "labels" / "final" / "d.nii.gz").write_bytes(b"half")
    monai_label_folder(tmp_path, "a", "final", {"client_id": "ann", "model": "unet_of_theirs"})
    names = list(TISSUES.labels)
    monai_label_folder(tmp_path, "b", "final", {"label_info": listed(names[4], names[5])})
    before = snapshot(tmp_path)
    data = store(tmp_path)
    assert snapshot(tmp_path) == before
    np.testing.assert_array_equal(read(data.get_label_uri("a", "final")), blocks(1, 2))
    np.testing.assert_array_equal(read(data.get_label_uri("b", "final")), blocks(6, 5))
    (version,) = data.store.labels.history("a", "final")
    assert (version.author, version.origin, version.system) == ("ann", "imported", "hip_tissue_ct")
    assert data.status()["label_tags"] == {"final": 2, "original": 1}
    for name in ("nobody", "c", "d"):
        assert f"{name}.nii.gz was not imported" in caplog.text
    again = store(tmp_path)
    assert len(again.store.labels.history("a")) == 2
    assert snapshot(tmp_path) == before


def test_a_new_label_sets_the_users_own_file_aside(tmp_path: Path) -> None:
    studies = tmp_path / "s"
    scan(studies / "a.nii.gz")
    file = write(studies / "labels" / "final" / "a.nii.gz", blocks(1, 2))
    own = file.read_bytes()
    data = store(studies)
    data.save_label("a", str(write(tmp_path / "l.nii.gz", blocks(3))), "final", {})
    np.testing.assert_array_equal(read(file), blocks(3))
    assert [path.read_bytes() for path in file.parent.glob("a.nii.gz.replaced-*")] == [own]
    assert len(store(studies).store.labels.history("a")) == 2


def test_the_same_label_again_sets_nothing_aside(tmp_path: Path) -> None:
    studies = tmp_path / "s"
    for name in "ab":
        scan(studies / f"{name}.nii.gz")
    data = store(studies)
    for image in ("a", "a", "b", "a"):
        data.save_label(image, str(write(tmp_path / "l.nii.gz", blocks(3))), "final", {})
    assert sorted(path.name for path in (studies / "labels" / "final").iterdir()) == ["a.nii.gz", "b.nii.gz"]
    assert len(data.store.labels.history("a")) == 3
    kept = data.store.labels.file(data.store.labels.newest("a", "final"))
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-9])
    data.save_label("a", str(write(tmp_path / "l.nii.gz", blocks(3))), "final", {})
    assert kept.read_bytes() == whole, "a file that was damaged is mended"


def test_json_is_what_the_slicer_module_reads(tmp_path: Path) -> None:
    scan(tmp_path / "s" / "a.nii.gz")
    data = store(tmp_path / "s")
    result = {"label_names": {"old": 1}, "latencies": {"total": np.float32(1.5)}, "score": float("nan")}
    file = str(write(tmp_path / "l.nii.gz", blocks(3)))
    data.save_label("a", file, "original", {"model": "hip_tissue_ct", "params": result})
    entry = json.loads(json.dumps(data.json(), allow_nan=False))["objects"]["a"]
    assert entry["image"]["ext"] == ".nii.gz"
    assert entry["image"]["info"]["name"] == "a.nii.gz"
    params = entry["labels"]["original"]["info"]["params"]
    assert list(params["label_names"].items()) == list(TISSUES.label_indices.items())
    assert params["latencies"] == {"total": 1.5}
    assert params["score"] is None


def test_labelled_images_by_tag_and_by_label_names(tmp_path: Path) -> None:
    for name in "abc":
        scan(tmp_path / "s" / f"{name}.nii.gz")
    data = store(tmp_path / "s", TISSUES, ABDUCTORS)
    file = str(write(tmp_path / "l.nii.gz", blocks(1)))
    data.save_label("a", file, "final", {"model": "hip_tissue_ct"})
    data.save_label("b", file, "original", {"model": "hip_abductor_mr"})
    assert data.get_labeled_images() == ["a"]
    assert data.get_unlabeled_images() == ["b", "c"]
    assert data.get_labeled_images("original") == ["b"]
    assert data.get_unlabeled_images(labels=["gluteus_medius"]) == ["a", "b", "c"]
    assert data.get_labels_by_image_id("b") == {"original": "b"}
    assert data.get_label_by_image_id("c", "final") == ""
    assert data.datalist() == [{"image": data.get_image_uri("a"), "label": data.get_label_uri("a", "final")}]


def test_archive_keeps_images_of_one_name_apart(tmp_path: Path) -> None:
    for site in "ab":
        scan(tmp_path / "s" / site / "scan.nii.gz")
    data = store(tmp_path / "s")
    with pytest.raises(NotFound):
        data.get_dataset_archive(None)
    for site in "ab":
        data.save_label(f"{site}/scan", str(write(tmp_path / "l.nii.gz", blocks(1))), "final", {})
    with zipfile.ZipFile(data.get_dataset_archive(None)) as archive:
        assert sorted(archive.namelist()) == [
            "image/a/scan.nii.gz",
            "image/b/scan.nii.gz",
            "label/a/scan.nii.gz",
            "label/b/scan.nii.gz",
            "metadata.json",
        ]
    with zipfile.ZipFile(data.get_dataset_archive(1)) as archive:
        assert len(archive.namelist()) == 3
