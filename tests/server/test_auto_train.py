"""Trainings that start by themselves, and one that is killed."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from live import SYSTEM, wait_for, write_label, write_studies

from msklabel.app import MskLabelApp
from msklabel.catalogue import app_folder
from msklabel.jobs.child import AppSource, JobError
from msklabel.jobs.process import JobRunner
from msklabel.learn.policy import Policy
from msklabel.learn.versions import Versions
from msklabel.networks import build_network, weights_of
from msklabel.serve.auto_train import AutoTrain, watch

pytestmark = pytest.mark.timeout(1500)
IMAGES = ("hip_0", "hip_1", "hip_2")


class Site:
    """An app with three labelled phantoms, and the runner of its jobs."""

    def __init__(self, folder: Path) -> None:
        self.studies = folder / "images"
        phantoms = write_studies(self.studies)
        self.conf = {"models": SYSTEM, "profile": "demo", "train_after": "3,60"}
        self.app = MskLabelApp(str(app_folder()), str(self.studies), self.conf)
        for image in IMAGES:
            file = write_label(folder / "label.nii.gz", phantoms[image].labels, phantoms[image].affine)
            self.app.datastore().save_label(image, str(file), "final", {"model": SYSTEM})
        self.jobs = self.runner(folder)

    def runner(self, folder: Path) -> JobRunner:
        source = AppSource("msklabel.work:Work", str(app_folder()), str(self.studies), self.conf)
        return JobRunner(source, folder / "logs", grace_s=20)

    @property
    def training(self) -> dict[str, Any]:
        """What the running training says of itself."""
        file = self.studies / ".msklabel" / "models" / SYSTEM / "training.json"
        return json.loads(file.read_text()) if file.exists() else {}

    @property
    def versions(self) -> Versions:
        return Versions(self.studies / ".msklabel" / "models")


@pytest.fixture
def site(tmp_path: Path) -> Any:
    site = Site(tmp_path)
    yield site
    site.jobs.close()


def test_a_killed_training_goes_on_from_its_last_checkpoint(site: Site) -> None:
    request = {"model": SYSTEM, "max_epochs": 400, "resume": True}
    checkpoint = site.studies / ".msklabel" / "models" / SYSTEM / "training" / "fold0" / "checkpoint.pt"
    job = site.jobs.start("train", request)
    wait_for(lambda: checkpoint.exists() and site.training.get("epoch", 0) >= 3, 400)
    assert job.child is not None
    os.kill(job.child.process.pid, signal.SIGKILL)
    with pytest.raises(JobError, match="signal 9"):
        job.outcome.result(300)
    reached = site.training["epoch"]

    again = site.jobs.start("train", request)
    wait_for(lambda: any("epoch" in line and " of 400" in line for line in again.details), 400)
    first = next(line for line in again.details if " of 400" in line)
    resumed_at = int(first.split(" of 400")[0].split()[-1])
    assert 1 < resumed_at <= reached + 1
    site.jobs.stop("train")


def test_the_server_trains_by_itself_once_and_remembers_over_a_restart(site: Site, tmp_path: Path) -> None:
    now_s = time.time()
    assert AutoTrain({SYSTEM: Policy(4, 60)}, _labels(site), site.versions.considered, site.jobs).look(now_s) is None
    auto = watch(site.app, site.jobs)
    job = auto.look(now_s)
    assert job is not None and job.request["reason"] == "3 new labels"
    assert auto.look(now_s) is None  # one runs
    site.jobs.stop("train")
    with pytest.raises(JobError):
        job.outcome.result(300)
    assert auto.look(now_s) is None  # who stopped it does not want it again

    restarted = site.runner(tmp_path)
    fresh = AutoTrain({SYSTEM: Policy(3, 60)}, _labels(site), site.versions.considered, restarted)
    assert fresh.look(now_s) is not None  # what is stored has not been learned from
    restarted.close()

    pairs = site.app.datastore().training_pairs(SYSTEM)
    record = {"considered": [pair.sha256 for pair in pairs], "held": {pairs[0].sha256: "mirrored"}}
    site.versions.add(site.app.systems[SYSTEM], [weights_of(build_network(site.app.systems[SYSTEM]))], record)
    third = AutoTrain({SYSTEM: Policy(1, 0.001)}, _labels(site), site.versions.considered, site.jobs)
    assert third.look(now_s + 10_000) is None
    site.app.datastore().store.reviews.add(pairs[0].version_id, "accepted", None, "rita")
    accepted = watch(site.app, site.jobs).look(now_s + 10_000)
    assert accepted is not None and accepted.request["reason"].startswith("1 new label(s), the first 1")


def test_it_does_not_begin_what_another_process_trains(site: Site) -> None:
    now_s = time.time()
    auto = watch(site.app, site.jobs)
    with FileLock(site.studies / ".msklabel" / "models" / SYSTEM / ".training.lock"):
        assert auto.look(now_s) is None
    job = auto.look(now_s)
    assert job is not None and site.jobs.jobs("train") == [job]


def _labels(site: Site) -> Any:
    def labels(system: str) -> dict[str, float]:
        return {pair.sha256: pair.label.stat().st_mtime for pair in site.app.datastore().training_pairs(system)}

    return labels
