"""The model that fits a scan is chosen by its measured fat fraction."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_preprocess import make_system
from torch import nn

from msklabel.imaging import Scan
from msklabel.learn.versions import Versions
from msklabel.networks import build_network, weights_of
from msklabel.predict.infiltration import fitting_variant, muscle_fat_fraction_percent
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
    monkeypatch.setattr("msklabel.predict.served.loaded_network", lambda *_: Muscle())
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
