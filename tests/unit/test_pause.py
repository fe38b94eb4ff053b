"""A training lets inferences of the server go first, and takes its share where they never end."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_learn import RECIPE, make_case
from test_precedence import _HOLDER
from test_preprocess import make_system

from msklabel.imaging.annotated import Annotated
from msklabel.imaging.scan import LabelMap
from msklabel.imaging.write import write_labels
from msklabel.jobs.precedence import INTERACTIVE, Precedence, waiter
from msklabel.learn.split import RolesInFile
from msklabel.learn.task import SystemTrainTask
from msklabel.learn.versions import Versions
from msklabel.serve.application import _coming_first
from msklabel_phantoms.write import save_nifti

SYSTEM = make_system(train={**RECIPE, "epochs": 3})


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, for which somebody waits."""
    command = [sys.executable, "-c", _HOLDER, str(tmp_path / INTERACTIVE)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def labelled(folder: Path, number: int) -> Any:
    scan, labels = make_case(number).load()
    image, label = folder / f"scan{number}.nii.gz", folder / f"label{number}.nii.gz"
    save_nifti(scan.array[0].astype(np.int16), np.diag([1.0, 1.0, 1.0, 1.0]), image)
    write_labels(label, LabelMap(labels, np.eye(4)))
    facts = {"image_id": f"scan{number}", "patient": f"p{number}", "sha256": f"sha{number}", "version_id": number}
    return SimpleNamespace(image=image, label=label, site=None, annotated=Annotated(), state="submitted", **facts)


def test_a_training_stands_still_while_another_process_infers(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    pairs = [labelled(tmp_path, number) for number in range(2)]
    paused, released = threading.Event(), threading.Event()
    pause = waiter(tmp_path / INTERACTIVE, lambda seconds: (paused.set(), released.wait(0.02))[0])
    versions = Versions(tmp_path / "models")
    task = SystemTrainTask(SYSTEM, versions, lambda _: pairs, RolesInFile(tmp_path / "models"), "cpu", pause=pause)
    done: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: done.append(task({})), daemon=True)
    thread.start()
    assert paused.wait(60)
    time.sleep(0.5)
    assert (done, task.stats()["epoch"]) == ([], 0)
    holder.kill()
    holder.communicate()
    released.set()
    thread.join(60)
    assert done[0]["epoch"] == 3 and done[0]["version"] == "0001"


def test_a_wait_is_no_longer_than_patience_allows(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    wait = waiter(tmp_path / INTERACTIVE, patience=3.0)
    time.sleep(0.1)
    for worked_s in (0.1, 0.0):
        time.sleep(worked_s)
        began = time.monotonic()
        wait()
        assert holder.poll() is None
        assert time.monotonic() - began >= 3 * worked_s
    wait(lambda: True)
    endless = waiter(tmp_path / INTERACTIVE, lambda _: slept.append(1))
    slept: list[int] = []
    endless(lambda: len(slept) == 3)
    assert len(slept) == 3


def test_predictions_of_a_training_pause_too(tmp_path: Path) -> None:
    pairs = [labelled(tmp_path, number) for number in range(2)]
    asked: list[int] = []
    task = SystemTrainTask(
        SYSTEM,
        Versions(tmp_path / "models"),
        lambda _: pairs,
        RolesInFile(tmp_path / "models"),
        "cpu",
        pause=lambda _: asked.append(task.stats()["epoch"]),
    )
    task({})
    steps = 4 * 3  # annotated slices of the scan that trains, in three epochs
    assert len(asked) > steps
    assert asked[-1] == 3  # the gate's, after the last epoch


def test_an_inference_that_somebody_waits_for_holds_trainings_up(tmp_path: Path) -> None:
    held: list[bool] = []

    def infer(request: dict[str, Any]) -> dict[str, Any]:
        looks: list[float] = []
        waiter(tmp_path / INTERACTIVE, looks.append)(lambda: bool(looks))
        held.append(bool(looks))
        return request

    app: Any = SimpleNamespace(infer=infer)
    compute = _coming_first(app, Precedence(tmp_path / "lock"), Precedence(tmp_path / INTERACTIVE))
    assert compute({"model": "toy"}) == {"model": "toy"}
    assert held == [True]
    looks: list[float] = []
    waiter(tmp_path / INTERACTIVE, looks.append)()
    assert looks == []
