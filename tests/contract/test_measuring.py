"""Labels of every system are measured from what the store holds: a new YAML file is tested the day it appears."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from msklabel.catalogue import configs_folder, load_catalogue
from msklabel.imaging.scan import LabelMap
from msklabel.imaging.write import write_labels
from msklabel.jobs.measuring import Measuring
from msklabel.store.datastore import MskDatastore
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
