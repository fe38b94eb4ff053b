"""Training: it learns, stops, resumes, and its versions are whole."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_preprocess import body_in_air, make_system

from msklabel.errors import Conflict, NotFound, UserError
from msklabel.imaging import Scan
from msklabel.learn.annotation import UNKNOWN
from msklabel.learn.cases import Case, prepare_case
from msklabel.learn.evaluate import case_dice, label_means, mean_dice
from msklabel.learn.losses import build_loss
from msklabel.learn.optimise import build_optimizer, recipe_schedule, step_after_epoch
from msklabel.learn.samples import Samples
from msklabel.learn.split import is_validation
from msklabel.learn.trainer import Stopped, Trainer
from msklabel.learn.versions import Versions
from msklabel.networks import build_network, load_weights, weights_of
from msklabel.predict.engine import Engine
from msklabel.sections import Train


def make_case(seed: int, left_out: tuple[int, ...] = ()) -> Case:
    def load() -> tuple[Scan, np.ndarray]:
        rng = np.random.default_rng(seed)
        hu, labels = body_in_air((30, 28, 6))
        labels[..., list(left_out)] = 0
        return Scan((hu + rng.normal(0, 20, hu.shape).astype(np.float32))[None], np.eye(4)), labels

    return Case(f"scan{seed}", f"patient{seed}", load)


RECIPE = {
    "loss": "cross_entropy",
    "optimizer": "adam",
    "learning_rate": 0.02,
    "batch": 1,
    "epochs": 40,
    "foreground_fraction": 0.5,
}


@pytest.mark.parametrize("mixed", [None, torch.bfloat16])
def test_training_learns_and_the_best_weights_come_back(mixed: torch.dtype | None, tmp_path: Path) -> None:
    system = make_system(train=RECIPE)
    reports = []
    trainer = Trainer(system, tmp_path)
    assert Trainer(make_system(train={**RECIPE, "mixed_precision": False}), tmp_path).mixed is None
    trainer.mixed = mixed  # whatever this processor has units for
    multiplied = set()
    first = next(module for module in trainer.network.modules() if isinstance(module, torch.nn.Conv2d))
    first.register_forward_hook(lambda module, given, output: multiplied.add(output.dtype))
    weights = trainer([make_case(0), make_case(1)], [make_case(2)], reports.append)
    assert multiplied == {mixed or torch.float32}
    assert {tensor.dtype for tensor in weights.values()} <= {torch.float32, torch.int64}
    assert [report.epoch for report in reports] == list(range(1, 41))
    assert reports[-1].loss < reports[0].loss
    network = build_network(system)
    load_weights(network, weights)
    dices = case_dice(Engine(system, network), [make_case(3)])
    assert mean_dice(dices) > 0.8
    assert set(label_means(dices)) == {"dense", "soft"}


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    system = make_system(train={**RECIPE, "augment": {"rotate_degrees": 10, "noise_sd": 0.1, "mirror_axes": [0]}})
    first, second = (Trainer(system, tmp_path / str(i), epochs=2, seed=5)([make_case(0)]) for i in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_stopped_training_goes_on_where_it_was(tmp_path: Path) -> None:
    system = make_system(train=RECIPE)
    whole = Trainer(system, tmp_path / "whole", epochs=4)([make_case(0)])
    stopped = Trainer(system, tmp_path / "parts", epochs=4)
    with pytest.raises(Stopped):
        stopped([make_case(0)], should_stop=lambda: stopped.state.epoch == 2)
    resumed = Trainer(system, tmp_path / "parts", epochs=4)
    reports = []
    weights = resumed([make_case(0)], report=reports.append)
    assert [report.epoch for report in reports] == [3, 4]
    assert all(torch.allclose(whole[name].float(), weights[name].float(), atol=1e-5) for name in whole)


def test_in_2d_each_annotated_slice_is_seen_once_an_epoch(tmp_path: Path) -> None:
    system = make_system()
    case = prepare_case(system, make_case(0, left_out=(3,)))
    batches = list(Samples(system, [case], seed=0).epoch(0))
    annotated = int((case.labels != UNKNOWN).any(dim=0).any(dim=0).sum())
    assert sum(len(batch.image) for batch in batches) == annotated == 3
    assert batches[0].image.shape[1:] == (1, 16, 16)
    assert batches[0].labels.dtype == torch.int64


def test_nothing_to_train_on_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no labelled scans"):
        Trainer(make_system(), tmp_path)([])


def test_a_diverged_loss_is_said(tmp_path: Path) -> None:
    trainer = Trainer(make_system(train={**RECIPE, "optimizer": "sgd", "learning_rate": 1e30}), tmp_path)
    with pytest.raises(UserError, match="the loss became"):
        trainer([make_case(0)])


@pytest.mark.parametrize("name", ["cross_entropy", "dice", "dice_cross_entropy"])
def test_losses_are_small_when_right_and_take_several_resolutions(name: str) -> None:
    labels = torch.randint(0, 3, (2, 16, 16), generator=torch.Generator().manual_seed(0))
    right = torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float() * 40
    loss = build_loss(name)
    assert float(loss(right, labels)) < 0.01 < 0.3 < float(loss(-right, labels))
    coarse = torch.nn.functional.interpolate(right, scale_factor=0.5, mode="nearest-exact")
    assert float(loss([right, coarse], labels)) < 0.01


def test_the_rate_is_halved_after_as_many_epochs_without_gain_as_the_recipe_says() -> None:
    train = {"loss": "dice", "optimizer": "adam", "learning_rate": 0.1, "batch": 1, "epochs": 9}
    recipe = Train.model_validate({**train, "schedule": "plateau", "plateau_epochs": 3})

    def rates(losses: list[float]) -> list[float]:
        optimizer = build_optimizer([torch.nn.Parameter(torch.zeros(1))], recipe)
        schedule, found = recipe_schedule(optimizer, recipe, 9), []
        for loss in losses:
            step_after_epoch(schedule, loss)
            found.append(optimizer.param_groups[0]["lr"])
        return found

    assert rates([1.0, 0.9, 0.9, 0.9, 2.0, 0.8]) == [0.1] * 4 + [0.05] * 2
    assert rates([1.0 - 1e-6 * epoch for epoch in range(9)]) == [0.1] * 9  # a small gain is one, too


def test_a_patient_is_always_on_the_same_side_of_the_split() -> None:
    sides = [is_validation(f"patient-{i}") for i in range(2000)]
    assert 0.17 < np.mean(sides) < 0.23
    assert sides == [is_validation(f"patient-{i}") for i in range(2000)]


def test_versions_are_immutable_numbered_and_published_by_a_pointer(tmp_path: Path) -> None:
    system, versions = make_system(), Versions(tmp_path)
    assert versions.serving("toy") is None
    network = build_network(system)
    first = versions.add(system, [weights_of(network)], {"mean_dice": 0.5})
    second = versions.add(system, [weights_of(network)], {"mean_dice": 0.6})
    assert (first.name, second.name, versions.serving("toy")) == ("0001", "0002", None)
    versions.publish("toy", "0002")
    assert versions.serving("toy") == "0002"
    versions.publish("toy", "0001")
    assert versions.serving("toy") == "0001"
    (stored,) = versions.weights(system, "0001")
    assert all(torch.equal(stored[name], tensor) for name, tensor in weights_of(network).items())
    metrics = json.loads((tmp_path / "toy/0001/metrics.json").read_text())
    digest = hashlib.sha256((tmp_path / "toy/0001/weights.safetensors").read_bytes()).hexdigest()
    assert metrics == {"mean_dice": 0.5, "weights_sha256": {"weights.safetensors": digest}}
    with pytest.raises(NotFound, match="no version '0009'; versions: 0001, 0002"):
        versions.publish("toy", "0009")


def test_rolling_back_serves_what_was_served_before_and_says_who_wanted_it(tmp_path: Path) -> None:
    system, versions = make_system(), Versions(tmp_path)
    with pytest.raises(Conflict, match="no version was served before"):
        versions.roll_back("toy")
    for _ in range(4):
        versions.add(system, [weights_of(build_network(system))], {})
    for name in ("0001", "0002", "0004"):
        versions.publish("toy", name)
    assert versions.roll_back("toy", who="anna") == "0002" == versions.serving("toy")
    assert versions.roll_back("toy") == "0001"
    assert versions.roll_back("toy", "0003") == "0003" == versions.serving("toy")
    assert [entry["version"] for entry in versions.history("toy")] == ["0001", "0002", "0004", "0002", "0001", "0003"]
    assert versions.history("toy")[3]["who"] == "anna"
    with pytest.raises(NotFound):
        versions.roll_back("toy", "0009")


def test_weights_of_another_configuration_are_refused_by_name(tmp_path: Path) -> None:
    system, versions = make_system(), Versions(tmp_path)
    versions.add(system, [weights_of(build_network(system))], {})
    other = make_system(spacing_mm=[2.0, 2.0, None])
    with pytest.raises(UserError, match=rf"{system.fingerprint}\), not of toy .*{other.fingerprint}"):
        versions.weights(other, "0001")


def test_a_damaged_weights_file_is_refused(tmp_path: Path) -> None:
    system, versions = make_system(), Versions(tmp_path)
    versions.add(system, [weights_of(build_network(system))], {})
    file = tmp_path / "toy/0001/weights.safetensors"
    whole = file.read_bytes()
    for damaged in (whole[:100], whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match="cannot be read"):
            versions.weights(system, "0001")
