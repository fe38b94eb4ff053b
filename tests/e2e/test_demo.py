"""``msklabel demo`` as a user starts it: the whole loop on phantoms, to a model that is good on held-out ones."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from sqlalchemy import create_engine, text

from msklabel.catalogue import configs_folder, load_catalogue
from msklabel.imaging.read import read_labels
from msklabel.learn.cases import Case
from msklabel.learn.trainer import Report, Trainer
from msklabel.learn.versions import Versions
from msklabel.networks import loaded_network
from msklabel.predict.engine import Engine
from msklabel.predict.source import read_for
from msklabel_phantoms.write import write_phantoms

SYSTEM = "hip_tissue_ct"
OTHERS = sorted({path.stem for path in configs_folder().glob("*.yaml")} - {SYSTEM})
_MOST_SECONDS = 840  # it takes about two minutes on two idle cores
PROGRAM = Path(sys.prefix) / "bin" / "msklabel"
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that a demo has filled, and what it printed."""
    out = tmp_path_factory.mktemp("demo")
    return out / SYSTEM, run_demo(out)


def run_demo(out: Path, *arguments: str) -> str:
    """Run ``msklabel demo`` and return what it printed."""
    log = out / "said.txt"
    command = [PROGRAM, "demo", *arguments, "--out", out]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, cwd=out, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        status = process.wait(_MOST_SECONDS)
    except subprocess.TimeoutExpired:
        status = None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the server too, if it is still there
    said = log.read_text(encoding="utf-8")
    print(said)
    assert status == 0, said
    return said


def test_the_trained_model_reaches_a_mean_dice_of_085_on_held_out_phantoms(demo: tuple[Path, str]) -> None:
    rounds = json.loads((demo[0] / "demo.json").read_text())["rounds"]
    assert [entry["labels"] for entry in rounds] == [0, 2, 4, 8]
    assert rounds[0]["dice"] < 0.3  # a random start
    assert rounds[-1]["dice"] >= 0.85
    assert len(rounds[-1]["label_dice"]) == 7
    assert min(rounds[-1]["label_dice"].values()) > 0.5


def test_each_training_made_a_version_and_one_is_served(demo: tuple[Path, str]) -> None:
    versions = Versions(demo[0] / "state" / "models")
    assert len(versions.names(SYSTEM)) == 3
    assert versions.serving(SYSTEM) in versions.names(SYSTEM)
    rounds = json.loads((demo[0] / "demo.json").read_text())["rounds"]
    assert rounds[-1]["version"] == versions.serving(SYSTEM)


def test_every_label_is_stored_as_the_annotator_sent_it(demo: tuple[Path, str]) -> None:
    pool, stored = demo[0] / "pool", demo[0] / "pool" / "images" / "labels" / "final"
    names = sorted(file.name for file in (pool / "truth").iterdir())
    assert len(names) == 8
    assert sorted(file.name for file in stored.iterdir()) == names
    for name in names:
        np.testing.assert_array_equal(read_labels(stored / name).array, read_labels(pool / "truth" / name).array)
    with create_engine(f"sqlite:///{demo[0] / 'state' / 'msklabel.db'}").connect() as database:
        authors = database.execute(text("SELECT DISTINCT author FROM label_version WHERE tag = 'final'")).scalars()
        assert list(authors) == ["demo-annotator"]


def test_the_picture_shows_a_curve_and_coloured_tissues(demo: tuple[Path, str]) -> None:
    picture = matplotlib.image.imread(demo[0] / "demo.png")[..., :3]
    assert min(picture.shape[:2]) > 600
    saturation = picture.max(-1) - picture.min(-1)
    assert (saturation > 0.3).mean() > 0.05
    assert len(np.unique((picture.reshape(-1, 3) * 15).astype(int), axis=0)) > 100


def test_progress_is_shown_all_along(demo: tuple[Path, str]) -> None:
    for words in ("generating 8 phantoms", "draft without training", "training: epoch", "round 3: mean Dice", "drawn"):
        assert words in demo[1]
    assert "synthetic" in demo[1]


def test_another_system_goes_round_the_loop_and_is_far_better_than_fresh_weights(tmp_path: Path) -> None:
    run_demo(tmp_path, "hip_radiograph", "--rounds", "3", "--epochs", "8")
    outcome = json.loads((tmp_path / "hip_radiograph" / "demo.json").read_text())
    fresh, trained = outcome["rounds"]
    assert (fresh["labels"], trained["labels"]) == (0, 3)
    assert fresh["dice"] < 0.2
    assert trained["dice"] > fresh["dice"] + 0.2
    assert outcome["cpu_seconds"] > trained["training_seconds"] / 4  # the training's own processor time is in it


@pytest.mark.parametrize("name", OTHERS)
def test_every_demo_profile_learns_and_labels_a_phantom_on_its_own_grid(name: str, tmp_path: Path) -> None:
    system = load_catalogue(names=[name], profile="demo")[name]
    (image,) = write_phantoms(name, tmp_path, count=1, seed=0)
    scan, truth = read_for(system, image), read_labels(tmp_path / "truth" / image.name).array
    reports: list[Report] = []
    trainer = Trainer(system, tmp_path / "training", epochs=4)
    weights = trainer([Case("one", "one", lambda: (scan, truth))], report=reports.append)
    assert reports[-1].loss < 0.99 * reports[0].loss
    assert Engine(system, loaded_network(system, weights))(scan).labels.array.shape == truth.shape
