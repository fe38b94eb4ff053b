"""Labels of every system are measured from what the store holds: a new YAML file is tested the day it appears."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from msklabel.catalogue import configs_folder, load_catalogue
from msklabel.errors import Unreachable
from msklabel.imaging.scan import LabelMap
from msklabel.imaging.write import write_labels
from msklabel.jobs.measuring import Measuring
from msklabel.store.datastore import MskDatastore
from msklabel.store.images import Images
from msklabel.store.quantities import describe
from msklabel_phantoms.write import generate, save_nifti

NAMES = sorted(path.stem for path in configs_folder().glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_a_submitted_label_is_measured(name: str, tmp_path: Path) -> None:
    system = load_catalogue(names=[name], profile="demo")[name]
    phantom = generate(name, 3, 0)
    studies = tmp_path / "studies"
    studies.mkdir()
    for channel, array in zip(system.channels, phantom.image, strict=True):
        suffix = f"_{channel}" if len(system.channels) > 1 else ""
        save_nifti(array, phantom.affine, studies / f"scan{suffix}.nii.gz")
    store = MskDatastore(studies, studies / ".msklabel", {name: system}).store
    write_labels(tmp_path / "label.nii.gz", LabelMap(phantom.labels, phantom.affine))
    version = store.submit("scan", tmp_path / "label.nii.gz", "final", {"model": name})
    measuring = Measuring("", str(studies), {"models": name, "profile": "demo"})
    assert measuring.quantities({"most": 5}) == {"measured": 1, "failed": 0}
    assert measuring.quantities({"most": 5}) == {"measured": 0, "failed": 0}

    told = describe(store.quantities.of([version])[0])
    assert told["state"] == "measured"
    assert not [note for note in told["notes"] if "nothing is measured in the image" in note]
    rows = {(row["structure"], row["side"]): row for row in told["rows"]}
    label, index = next((n, i) for n, i in system.label_indices.items() if (phantom.labels == i).any())
    side = next((side for side in ("left", "right") if label.endswith(f"_{side}")), "both")
    assert rows[label.removesuffix(f"_{side}"), side]["voxels"] == int(np.count_nonzero(phantom.labels == index))


def test_what_cannot_be_measured_now_is_measured_later_and_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = load_catalogue(names=["hip_tissue_ct"], profile="demo")["hip_tissue_ct"]
    phantom, studies = generate(system.name, 3, 0), tmp_path / "studies"
    studies.mkdir()
    for name in "abc":
        save_nifti(phantom.image[0], phantom.affine, studies / f"{name}.nii.gz")
    store = MskDatastore(studies, studies / ".msklabel", {system.name: system}).store
    write_labels(tmp_path / "label.nii.gz", LabelMap(phantom.labels, phantom.affine))
    versions = [store.submit(name, tmp_path / "label.nii.gz", "final", {"model": system.name}) for name in "abc"]
    measuring, healthy = Measuring("", str(studies), {"models": system.name, "profile": "demo"}), Images.path

    def locate(images: Images, image_id: str) -> Path:
        wrong = {"b": Unreachable("the PACS does not answer"), "c": MemoryError("too large")}
        if image_id in wrong:
            raise wrong[image_id]
        return healthy(images, image_id)

    monkeypatch.setattr(Images, "path", locate)
    assert measuring.quantities({"most": 5}) == {"measured": 1, "failed": 2}
    told = [describe(known) for known in store.quantities.of(versions)]
    assert [one["state"] for one in told] == ["measured", "failed", "failed"]
    assert told[1]["error"] == "the PACS does not answer"
    monkeypatch.undo()
    store.quantities.forget_failed()  # as a server does when it starts
    assert measuring.quantities({"most": 5}) == {"measured": 2, "failed": 0}
    rows = [describe(known)["rows"] for known in store.quantities.of(versions)]
    assert any(row["mean_hu"] is not None for row in rows[1])
    assert [[{**row, "scan": ""} for row in one] for one in rows] == [[{**row, "scan": ""} for row in rows[0]]] * 3
