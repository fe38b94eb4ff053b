"""The model that fits a scan is chosen by its measured fat fraction."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_preprocess import make_system
from torch import nn

from msklabel.errors import UserError
from msklabel.imaging import Scan
from msklabel.learn.cases import Case
from msklabel.learn.split import RolesInFile
from msklabel.learn.task import SystemTrainTask
from msklabel.learn.versions import Versions
from msklabel.networks import build_network, weights_of
from msklabel.predict.infiltration import doubt_about_fat, fitting_variant, muscle_fat_fraction_percent
from msklabel.predict.served import ServedModel
from msklabel.system import ConfigError, System

FATTY = {"title": "Much fat", "fat_fraction_from_percent": 20, "train": {"epochs": 7}}


def dixon_system() -> System:
    return make_system(
        modality=["MR"],
        channels=["out_of_phase", "in_phase"],
        spacing_mm=[None, None, None],
        intensity={"kind": "window", "lower": 0, "upper": 200},
        variants={"fatty": FATTY},
    )


def leg(fat_percent: float) -> Scan:
    """A block of signal 100 in the dark, of one fat fraction up to 50 %."""
    in_phase = np.zeros((24, 22, 6), np.float32)
    in_phase[4:20, 4:18, 1:5] = 100
    return Scan(np.stack([in_phase * (1 - 2 * fat_percent / 100), in_phase]), np.eye(4))


class Muscle(nn.Module):
    """Label 1 wherever the in-phase image has signal."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack((0.25 - x[:, 1], x[:, 1] - 0.25, torch.full_like(x[:, 1], -9)), 1)


@pytest.mark.parametrize(("fat_percent", "variant"), [(5.0, ""), (19.0, ""), (21.0, "fatty"), (45.0, "fatty")])
def test_the_fat_fraction_under_the_labels_decides(fat_percent: float, variant: str) -> None:
    scan = leg(fat_percent)
    labels = (scan.array[1] > 0).astype(np.uint8)
    measured = muscle_fat_fraction_percent(dixon_system(), scan, labels)
    assert measured == pytest.approx(fat_percent, abs=0.1)
    assert fitting_variant(dixon_system(), measured) == variant


def test_a_scan_is_segmented_by_the_variant_once_it_is_in_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msklabel.predict.selection.loaded_network", lambda *_: Muscle())
    system, versions = dixon_system(), Versions(tmp_path)
    model = ServedModel(system, versions, "cpu")
    for _ in range(2):
        versions.add(system, [weights_of(build_network(system))], {})
    versions.publish("toy", "0001")
    assert model(leg(45))[0] == "0001"
    versions.publish("toy", "0002", "fatty")
    assert model(leg(45))[0] == "0002 (fatty)"
    assert model(leg(5))[0] == "0001"


def test_a_variant_changes_the_recipe_and_keeps_the_fingerprint() -> None:
    system = dixon_system()
    variant = system.with_variant("fatty")
    assert (variant.train.epochs, variant.train.batch) == (7, system.train.batch)
    assert variant.fingerprint == system.fingerprint
    with pytest.raises(ConfigError, match="no variant 'lean'; variants: fatty"):
        system.with_variant("lean")


def test_where_no_labelled_scan_is_one_for_a_variant_that_is_said(tmp_path: Path) -> None:
    task = SystemTrainTask(dixon_system(), Versions(tmp_path), lambda _: [], RolesInFile(tmp_path), "cpu")

    def case(fat_percent: float) -> Case:
        scan = leg(fat_percent)
        return Case(f"{fat_percent}", "p", lambda: (scan, (scan.array[1] > 0).astype(np.uint8)))

    assert [one.id for one in task._fitting([case(5.0), case(45.0)], "fatty")] == ["45.0"]
    with pytest.raises(UserError, match=r"none of 2 .* is one for fatty, whose muscles hold 20 % fat"):
        task._fitting([case(5.0), case(10.0)], "fatty")


def thigh(fat_percent: float, muscle_to_fat: float, beside: bool = False) -> Scan:
    """A round thigh of 64 mm under 16 mm of fat with a signal of 200; muscle of one fat fraction and brightness."""
    x, y, _ = np.meshgrid((np.arange(50) - 24.5) * 4, (np.arange(50) - 24.5) * 4, np.arange(4), indexing="ij")
    radius, share = np.hypot(x, y), fat_percent / 100
    in_phase = np.where(radius < 64, 200 * muscle_to_fat, np.where(radius < 80, 200.0, 0)).astype(np.float32)
    fat = in_phase * np.where(radius < 64, share, 0.95)
    water = in_phase - fat
    images = {"water": water, "fat": fat} if beside else {}
    return Scan(np.stack([np.abs(water - fat), in_phase]), np.diag([4.0, 4, 6, 1]), beside=images)


def inner(scan: Scan) -> np.ndarray:
    labels = np.zeros(scan.shape, np.uint8)
    labels[14:36, 14:36] = 1
    return labels


@pytest.mark.parametrize(
    ("fat_percent", "muscle_to_fat", "beside", "read", "doubtful"),
    [
        (88.0, 0.97, False, 12.0, True),  # end-stage: reads as the first stages, but bright
        (12.0, 0.7, False, 12.0, False),
        (88.0, 0.97, True, 88.0, False),  # water and fat are there: no doubt
        (12.0, 0.97, True, 12.0, False),
        (45.0, 0.9, False, 45.0, False),  # 55 % would get the same model
    ],
)
def test_phases_that_may_hide_much_fat_are_doubted(
    fat_percent: float, muscle_to_fat: float, beside: bool, read: float, doubtful: bool
) -> None:
    system, scan = dixon_system(), thigh(fat_percent, muscle_to_fat, beside)
    measured = muscle_fat_fraction_percent(system, scan, inner(scan))
    assert measured == pytest.approx(read, abs=0.5)
    doubt = doubt_about_fat(system, scan, inner(scan), measured)
    assert (doubt is not None) == doubtful
    if doubt:
        assert "reads as 12 %" in doubt
        assert "from 88 %" in doubt
        assert "the model for much fat would fit" in doubt


class Inner(nn.Module):
    """Label 1 in the middle of the window."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros((len(x), 3, *x.shape[2:]))
        scores[:, 0] = 1
        scores[:, 1, 14:36, 14:36] = 2
        return scores


def test_the_answer_says_what_was_measured_and_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("msklabel.predict.selection.loaded_network", lambda *_: Inner())
    system = dixon_system().model_copy(update={"patch_voxels": (48, 48, 1)})
    versions = Versions(tmp_path)
    versions.publish("toy", versions.add(system, [weights_of(build_network(system))], {}).name)
    model = ServedModel(system, versions, "cpu")
    _, clear = model(thigh(10, 0.7))
    percent = pytest.approx(10, abs=1)
    assert clear.facts == {"fat_fraction_percent": percent, "warnings": [], "backend": "eager"}
    _, doubted = model(thigh(88, 0.97))
    assert len(doubted.facts["warnings"]) == 1
    assert "as bright as fat" in caplog.text
    _, untrained = model(thigh(88, 0.97, beside=True))
    assert untrained.facts["fat_fraction_percent"] == pytest.approx(88, abs=2)
    assert untrained.facts["warnings"] == [
        "the muscles' fat fraction is 88 %, but the model for such scans, fatty, is not trained yet; the first model "
        "was not made for them"
    ]
