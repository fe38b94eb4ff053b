"""MONAI Label's own, unmodified server serves the app, and 3D Slicer's own client goes round the loop with it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from msklabel.demo.slicer import slicer_client
from msklabel.imaging.read import read_labels, read_scan
from msklabel_phantoms.write import write_phantoms

ROOT = Path(__file__).resolve().parents[2]
SYSTEM, DRAFT = "hip_tissue_ct", "hip_tissue_ct_threshold"
COUNT = 5
FOR_SLICER = {"result_extension": ".nrrd", "result_dtype": "uint8"}
pytestmark = pytest.mark.timeout(600)


@dataclass
class Site:
    """A running stock server.

    Attributes:
        url: Its address.
        folder: Where the phantoms lie, ``images`` and ``truth``.
        app: The copy of the app's folder.
        client: 3D Slicer's client.
    """

    url: str
    folder: Path
    app: Path
    client: Any

    @property
    def images(self) -> list[str]:
        return sorted(file.name.removesuffix(".nii.gz") for file in (self.folder / "images").glob("*.nii.gz"))

    def source(self, image: str) -> Path:
        return self.folder / "images" / f"{image}.nii.gz"

    def truth(self, image: str) -> Path:
        return self.folder / "truth" / f"{image}.nii.gz"

    def post(self, path: str, **options: Any) -> Any:
        answer = requests.post(self.url + path, timeout=60, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def finished(self, path: str) -> dict[str, Any]:
        """Wait for the newest background task and return it."""

        def task() -> dict[str, Any]:
            return requests.get(self.url + path, timeout=60).json()

        wait_for(lambda: task()["status"] not in ("SUBMITTED", "RUNNING"))
        ended = task()
        assert ended["status"] == "DONE", "\n".join(ended.get("details", ["no output"]))
        return ended


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The server on a few small phantoms, with a copy of the app, because it creates folders in it."""
    folder = tmp_path_factory.mktemp("stock")
    app = shutil.copytree(ROOT / "apps" / "msk", folder / "app")
    list(write_phantoms(SYSTEM, folder, count=COUNT, seed=7, shape=(96, 72, 4), spacing_mm=(4, 4, 5)))
    port = free_port()
    command = ["monailabel", "start_server", "--app", app, "--studies", folder / "images", "--conf", "models", SYSTEM]
    command += ["--conf", "profile", "demo", "--host", "127.0.0.1", "--port", port]
    programs = Path(sys.prefix) / "bin"
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    log = folder / "server.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [programs / command[0], *map(str, command[1:])],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(url) or process.poll() is not None, 120)
        assert process.poll() is None, log.read_text(errors="replace")
        downloads = folder / "downloads"
        downloads.mkdir()
        yield Site(url, folder, app, slicer_client(url, downloads, "anna"))
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def labelled(site: Site) -> Site:
    """The same site after an annotator has corrected every scan but one."""
    for number in range(COUNT - 1):
        sample = site.client.next_sample("first", {})
        assert sample["id"] == site.images[number]
        assert Path(sample["path"]) == site.source(sample["id"])
        params = {"model": DRAFT, "label_info": [{"name": "muscle", "idx": 5}]}
        saved = site.client.save_label(sample["id"], str(site.truth(sample["id"])), params=params)
        assert saved["image"] == sample["id"]
    return site


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    with contextlib.suppress(requests.ConnectionError, requests.Timeout):
        return requests.get(f"{url}/info/", timeout=30).status_code == 200
    return False


def wait_for(condition: Callable[[], object], seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.3)


def test_info_lists_models_trainer_strategies_and_scoring(site: Site) -> None:
    info = site.client.info()
    assert list(info["models"]) == [DRAFT, SYSTEM, "interpolate"]  # 3D Slicer runs the first one on each new scan
    assert set(info["trainers"]) == {SYSTEM}
    assert {"random", "first"} <= set(info["strategies"])
    assert set(info["scoring"]) == {"dice", "summary"}
    assert info["labels"][:2] == ["cortical_bone", "trabecular_bone"]
    assert info["datastore"]["total"] == COUNT


def test_the_draft_comes_as_nrrd_on_the_scans_grid(site: Site) -> None:
    image = site.images[0]
    file, params = site.client.infer(DRAFT, image, dict(FOR_SLICER))
    draft, truth = read_labels(file), read_labels(site.truth(image))
    assert Path(file).suffix == ".nrrd"
    assert params["label_names"]["muscle"] == 5
    np.testing.assert_allclose(draft.affine, read_scan(site.source(image)).affine, atol=1e-4)
    muscle = (draft.array == 5, truth.array == 5)
    assert 2 * (muscle[0] & muscle[1]).sum() / (muscle[0].sum() + muscle[1].sum()) > 0.5


def test_a_scan_that_is_not_in_the_folder_is_segmented_as_a_session(site: Site) -> None:
    image = site.images[0]
    session = site.client.create_session(str(site.source(image)))["session_id"]
    file, _ = site.client.infer(DRAFT, "", dict(FOR_SLICER), session_id=session)
    expected, _ = site.client.infer(DRAFT, image, dict(FOR_SLICER))
    np.testing.assert_array_equal(read_labels(file).array, read_labels(expected).array)


def test_a_path_of_this_machine_is_no_image(site: Site, tmp_path: Path) -> None:
    secret = shutil.copy(site.source(site.images[0]), tmp_path / "secret.nii.gz")
    with pytest.raises(Exception, match=r"Status: [45]\d\d"):
        site.client.infer(DRAFT, str(secret), dict(FOR_SLICER))


def test_labels_are_stored_and_listed(labelled: Site) -> None:
    objects = labelled.client.datastore()["objects"]
    assert sorted(objects) == labelled.images
    assert [image for image in objects if "final" in objects[image]["labels"]] == labelled.images[:-1]
    image = labelled.images[0]
    stored = read_labels(labelled.client.download_label(image, "final"))
    np.testing.assert_array_equal(stored.array, read_labels(labelled.truth(image)).array)
    assert labelled.client.info()["datastore"]["completed"] == COUNT - 1
    assert labelled.client.next_sample("random", {})["id"] == labelled.images[-1]


def test_training_runs_in_a_child_process_and_the_trained_model_is_served(labelled: Site) -> None:
    with pytest.raises(Exception, match=r"Status: [45]\d\d"):
        labelled.client.infer(SYSTEM, labelled.images[-1], dict(FOR_SLICER))

    task = labelled.client.train_start(SYSTEM, {"max_epochs": 2})
    assert task["request"]["max_epochs"] == 2
    done = labelled.finished("/train/")
    assert any("epoch 2 of 2" in line for line in done["details"])

    info = labelled.client.info()
    assert list(info["models"]) == [
        DRAFT,
        SYSTEM,
        "interpolate",
    ]  # two epochs do not beat the draft: the version is kept
    studies = labelled.folder / "images"
    program = Path(sys.prefix) / "bin" / "msklabel"
    subprocess.run([program, "rollback", SYSTEM, "0001", "--studies", studies], check=True)
    info = labelled.client.info()
    assert list(info["models"]) == [SYSTEM, DRAFT, "interpolate"]
    assert info["models"][SYSTEM]["version"] == "0001"
    assert (info["train_stats"][SYSTEM]["epoch"], info["train_stats"][SYSTEM]["total_epochs"]) == (2, 2)
    file, params = labelled.client.infer(SYSTEM, labelled.images[-1], dict(FOR_SLICER))
    predicted = read_labels(file)
    assert predicted.array.shape == read_scan(labelled.source(labelled.images[-1])).shape
    assert params["model_version"] == info["models"][SYSTEM]["version"]
    assert len(np.unique(predicted.array)) > 1


def test_batch_inference_stores_automatic_labels_that_scoring_compares_with_final_ones(labelled: Site) -> None:
    broken = labelled.folder / "images" / "a_broken.nii.gz"
    broken.write_bytes(labelled.source(labelled.images[0]).read_bytes()[:2000])
    labelled.post(f"/batch/infer/{DRAFT}")  # with the options that MONAI Label's endpoint has by default
    done = labelled.finished("/batch/infer")
    assert any("a_broken" in line and "damaged or cut off" in line for line in done["details"])
    broken.unlink()
    objects = labelled.client.datastore()["objects"]
    assert all("original" in objects[image]["labels"] for image in labelled.images)

    labelled.post("/scoring/dice", json={})
    labelled.finished("/scoring/")
    objects = labelled.client.datastore()["objects"]
    scores = {image: entry["image"]["info"].get("scores", {}).get("dice") for image, entry in objects.items()}
    assert scores.pop(labelled.images[-1]) is None
    assert all(0.3 < score < 1 for score in scores.values()), scores


def test_nothing_was_written_beside_the_users_images_but_labels_and_state(labelled: Site) -> None:
    names = {path.name for path in (labelled.folder / "images").iterdir()}
    assert names - {f"{image}.nii.gz" for image in labelled.images} == {".msklabel", "labels"}
