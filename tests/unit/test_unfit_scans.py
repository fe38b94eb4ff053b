"""A scan that a system cannot use is not offered for it, and why is told; a label of it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dicom_samples import series
from store_samples import ABDUCTORS, DIXON, SHAPE, TISSUES, blocks, scan, store, write
from test_choosing import TOY, publish
from test_preprocess import make_system

from msklabel.choose.task import Choosers, SummaryScoring, strategies
from msklabel.errors import UserError
from msklabel.store.datastore import MskDatastore
from msklabel.store.fit import reasons_against
from msklabel.store.images import CHANNELS
from msklabel.store.schema import Image

TWO = "toy needs 1 channel (ct), this has 2"
PAIR = make_system(name="pair", channels=["a", "b"])


def two_channels(file: Path) -> Path:
    """A file of two volumes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).integers(-100, 400, (*SHAPE, 2)).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.diag([-1.0, -1.5, 2.0, 1.0])), file)
    return file


def asked(data: MskDatastore, **request: Any) -> str | None:
    answer = strategies()["first"]({"client_id": "anna", **request}, data)
    return answer["id"] if answer else None


def test_a_scan_of_several_channels_is_not_offered_until_its_file_changes(tmp_path: Path) -> None:
    file = two_channels(tmp_path / "s" / "a.nii.gz")
    scan(tmp_path / "s" / "b.nii.gz")
    data = store(tmp_path / "s", TOY)
    for _ in range(2):
        assert asked(data) == "b"
    assert asked(data, client_id="ben") is None
    said = Choosers()(data.store).explain("a", "first", {})
    assert (said["open"], said["reason"]) == (False, TWO)
    assert Choosers()(data.store).progress()["toy"]["unscored"] == 1
    scan(file)
    data.store.images.refresh()
    assert asked(data, client_id="ben") == "a" and CHANNELS not in data.get_image_info("a")


def test_it_is_offered_to_a_system_of_as_many_channels(tmp_path: Path) -> None:
    two_channels(tmp_path / "s" / "a.nii.gz")
    scan(tmp_path / "s" / "b.nii.gz")
    data = store(tmp_path / "s", TOY, PAIR)
    assert asked(data, systems="pair") == "a"
    assert asked(data, systems="toy") == "b"
    assert data.store.unfit("a") == {"toy": TWO}
    assert data.store.unfit("b") == {"pair": "pair needs 2 channels (a, b), this has 1"}
    assert asked(data, client_id="ben", systems="pair") is None


def test_a_kind_that_is_found_out_as_a_scan_is_read_counts_at_once(tmp_path: Path) -> None:
    series(tmp_path / "s" / "a", modality="MR")
    scan(tmp_path / "s" / "b.nii.gz")
    data = store(tmp_path / "s", TOY)
    assert asked(data) == "b"
    assert Choosers()(data.store).explain("a", "first", {})["reason"] == "toy is for CT, this is MR"


@pytest.mark.parametrize(
    ("found", "file", "fits"),
    [
        (["water", "fat"], "a_water.nii.gz", {"hip_abductor_mr", "thigh_dixon"}),
        (["in_phase", "water"], "a_in_phase.nii.gz", {"hip_abductor_mr"}),
        (["fat"], "torso_fat.nii.gz", {"toy", "hip_abductor_mr"}),  # of a CT, by its name
        (["out_of_phase", "in_phase"], "1.2/1.3+1.4", {"thigh_dixon"}),
        (1, "a.nii.gz", {"toy", "hip_abductor_mr"}),
        (2, "a.nii.gz", {"thigh_dixon"}),
        (None, "a.nii.gz", {"toy", "hip_abductor_mr", "thigh_dixon"}),
        ("as a client notes it", "a.nii.gz", {"toy", "hip_abductor_mr", "thigh_dixon"}),
    ],
)
def test_names_and_number_of_channels_tell_for_whom_a_scan_is(found: Any, file: str, fits: set[str]) -> None:
    image = Image(id="a", file=file, info={} if found is None else {CHANNELS: found})
    systems = {system.name: system for system in (TOY, ABDUCTORS, DIXON)}
    assert systems.keys() - reasons_against(image, systems).keys() == fits


def test_clients_cannot_note_what_is_found_by_reading(tmp_path: Path) -> None:
    scan(tmp_path / "s" / "a.nii.gz")
    data = store(tmp_path / "s", TOY)
    data.update_image_info("a", {"channels": 2, "unreadable": "says who", "note": "mine"})
    assert asked(data) == "a"
    assert {"channels", "unreadable"}.isdisjoint(data.get_image_info("a")) and data.get_image_info("a")[
        "note"
    ] == "mine"


def test_scans_that_were_read_by_an_earlier_release_are_found_out_as_they_are_scored(tmp_path: Path) -> None:
    two_channels(tmp_path / "s" / "a.nii.gz")
    data = store(tmp_path / "s", TOY)
    data.store.images.grid("a")
    with data.store._database.write() as session:
        session.get_one(Image, "a").info = {}
    versions = publish(data.store.state)
    assert asked(data) == "a"
    data.store.leases.release("a", "anna")
    assert SummaryScoring(Choosers(versions), versions)({}, data)["toy"]["failed"] == 1
    assert asked(data) is None


def test_a_label_of_such_a_scan_is_kept_and_what_it_is_good_for_is_told(tmp_path: Path) -> None:
    two_channels(tmp_path / "s" / "a.nii.gz")
    data = store(tmp_path / "s", TISSUES)
    label = write(tmp_path / "l.nii.gz", blocks(1), origin_mm=(0.0, 0.0, 0.0))
    version = data.submit("a", label, "final", {"model": TISSUES.name})
    [warning] = version.warnings
    assert warning.startswith("no model can learn from this label") and "this has 2" in warning


def test_why_a_scan_cannot_be_read_is_told_where_it_is_asked_about(tmp_path: Path) -> None:
    scan(tmp_path / "s" / "a.nii.gz").write_bytes(b"none")
    data = store(tmp_path / "s", TOY)
    assert asked(data) is None
    with pytest.raises(UserError, match="cannot be read as an image"):
        Choosers()(data.store).explain("a", "first", {})


def test_who_has_a_scan_is_told_where_it_is_asked_about(tmp_path: Path) -> None:
    scan(tmp_path / "s" / "a.nii.gz")
    data = store(tmp_path / "s", TISSUES)
    assert asked(data) == "a"
    explain = Choosers()(data.store).explain
    assert explain("a", "first", {"client_id": "ben"})["reason"] == "with anna at present"
    data.submit("a", write(tmp_path / "l.nii.gz", blocks(1)), "final", {"model": TISSUES.name, "client_id": "anna"})
    assert explain("a", "first", {"client_id": "ben"})["reason"] == "labelled"
