"""A label that was acknowledged survives the death of the server at any instant."""

from __future__ import annotations

from pathlib import Path

from crash_site import CrashSite, Outcome

from msklabel.catalogue import load_catalogue
from msklabel.imaging.read import read_labels
from msklabel.store.backup import verify
from msklabel.store.core import Store


def check(site: CrashSite, outcome: Outcome) -> None:
    """Every acknowledged label is there, bit for bit, and every file is what its record says."""
    store = Store(site.studies, site.state, load_catalogue(names=["hip_tissue_ct"], profile="demo"))
    store.open()
    versions = {version.id: version for image in site.images for version in store.labels.history(image)}
    for number, voxels in outcome.acknowledged:
        assert number in versions, f"label version {number} was acknowledged and is gone"
        assert read_labels(store.labels.file(versions[number])).array.tobytes() == voxels
    assert verify(site.state, lambda done, of_all: None).problems == []
    for image in site.images:
        if newest := [version for version in versions.values() if version.image_id == image]:
            shown = site.studies / "labels" / "final" / f"{image}.nii.gz"
            assert shown.read_bytes() == store.labels.file(newest[-1]).read_bytes()


def test_no_acknowledged_label_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    site = CrashSite(tmp_path)
    try:
        outcome = site.run(kills=8, annotators=4, seed=1)
        check(site, outcome)
    finally:
        site.stop()
    assert outcome.kills == 8
    assert outcome.refused == []
    assert len({number for number, _ in outcome.acknowledged}) == len(outcome.acknowledged) >= 4
