"""The schema of a system: what it refuses and how it says so, profiles, fingerprint."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from msklabel.system import ConfigError, System, load_system

MINIMAL: dict[str, Any] = {
    "name": "two_bones",
    "title": "Two bones",
    "source": "nobody",
    "modality": ["CT"],
    "channels": ["ct"],
    "dimensions": 3,
    "labels": {
        "femur": {"index": 1, "code": "SCT:71341001", "color": [240, 220, 170]},
        "patella": {"index": 2, "code": "99MSKLABEL:PATELLA", "color": [10, 20, 30]},
    },
    "groups": {"all": ["femur", "patella"]},
    "spacing_mm": [1.0, 1.0, 2.0],
    "intensity": {"kind": "window", "lower": -100, "upper": 200},
    "patch_voxels": [32, 32, 16],
    "network": {"name": "plain_unet", "features": [8, 16], "strides": [[1, 1, 1], [2, 2, 2]]},
    "train": {"loss": "dice", "optimizer": "adam", "learning_rate": 1.0e-3, "batch": 2, "epochs": 10},
    "profiles": {"demo": {"patch_voxels": [16, 16, 8], "train": {"epochs": 2}}},
}


def write(folder: Path, data: Any, stem: str = "two_bones") -> Path:
    file = folder / f"{stem}.yaml"
    file.write_text(data if isinstance(data, str) else yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return file


def changed(**changes: Any) -> dict[str, Any]:
    """MINIMAL with the values at double-underscore paths replaced."""
    data = copy.deepcopy(MINIMAL)
    for path, value in changes.items():
        *parents, last = path.split("__")
        section = data
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    return data


@pytest.fixture
def system(tmp_path: Path) -> System:
    return load_system(write(tmp_path, MINIMAL))


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[..., str]:
    """The message of the error that a changed file meets; it must begin with the file."""

    def message(**changes: Any) -> str:
        file = write(tmp_path, changed(**changes))
        with pytest.raises(ConfigError) as error:
            load_system(file)
        assert str(error.value).startswith(str(file))
        return str(error.value).removeprefix(str(file))

    return message


def test_minimal_file_loads(system: System) -> None:
    assert system.classes == 3
    assert system.label_indices == {"femur": 1, "patella": 2}
    assert system.profile_names == ("paper", "demo")
    assert system.network.parameters == {"features": [8, 16], "strides": [[1, 1, 1], [2, 2, 2]]}


def test_labels_come_in_order_of_index(tmp_path: Path) -> None:
    labels = dict(reversed(MINIMAL["labels"].items()))
    assert list(load_system(write(tmp_path, changed(labels=labels))).labels) == ["femur", "patella"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"trian": 1}, ["trian", "unknown key"]),
        ({"train__lr": 0.1}, ["train.lr", "unknown key"]),
        ({"labels__femur__colour": [1, 2, 3]}, ["labels.femur.colour", "unknown key"]),
        ({"labels__patella__index": 1}, ["labels", "1 to 2", "[1, 1]"]),
        ({"labels__patella__index": 3}, ["labels", "1 to 2", "[1, 3]"]),
        ({"labels__patella__index": 0}, ["labels.patella.index", "0", "greater than 0"]),
        ({"labels__patella__code": "SCT:71341001"}, ["labels", "code of its own"]),
        ({"labels__femur__code": "SCT:femur"}, ["labels.femur.code", "'SCT:femur'"]),
        ({"labels__femur__color": [0, 0, 256]}, ["labels.femur.color.2", "256", "255"]),
        ({"groups__all": ["femur", "tibia"]}, ["groups.all", "['tibia']", "femur, patella"]),
        ({"groups__femur": ["femur", "patella"]}, ["groups.femur", "name of a label"]),
        ({"postprocess__fill_holes": ["tibia"]}, ["postprocess.fill_holes", "['tibia']", "femur, patella"]),
        ({"dimensions": 2}, ["patch_voxels", "[32, 32, 16]", "1 in 2D"]),
        ({"patch_voxels": [32, 32, 1]}, ["patch_voxels", "[32, 32, 1]", "more in 3D"]),
        ({"intensity__lower": 200}, ["intensity", "lower (200)", "upper (200)"]),
        ({"intensity__lower": 300}, ["intensity", "lower (300)", "upper (200)"]),
        ({"train__schedule": "plateau"}, ["train", "plateau_epochs", "schedule: plateau"]),
        ({"train__plateau_epochs": 5}, ["train", "plateau_epochs", "schedule: plateau"]),
        ({"train__loss": "focal"}, ["train.loss", "'focal'", "dice_cross_entropy"]),
        ({"modality": ["PET"]}, ["modality.0", "'PET'", "'CT'"]),
        ({"intensity__kind": "rank"}, ["intensity", "rank", "zscore"]),
        ({"name": "three_bones"}, ["name", "'three_bones'", "'two_bones'"]),
        ({"profiles__paper": {}}, ["profiles.paper", "the file itself"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_error_names_file_key_and_value(
    refusal: Callable[..., str], changes: dict[str, Any], expected: list[str]
) -> None:
    message = refusal(**changes)
    assert [part for part in expected if part not in message] == []


@pytest.mark.parametrize("key", ["name", "labels", "train", "network", "spacing_mm"])
def test_missing_key_is_named(tmp_path: Path, key: str) -> None:
    file = write(tmp_path, {name: value for name, value in MINIMAL.items() if name != key})
    with pytest.raises(ConfigError, match=f"{key}: missing"):
        load_system(file)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"train": {"epochs": 0}}, ["train.epochs", "0", "greater than 0"]),
        ({"train": {"epoch": 1}}, ["train.epoch", "unknown key"]),
        ({"patch_voxels": [16, 16, 1]}, ["patch_voxels", "[16, 16, 1]"]),
    ],
)
def test_bad_profile_is_named_when_the_file_is_read(
    tmp_path: Path, overrides: dict[str, Any], expected: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        load_system(write(tmp_path, changed(profiles__demo=overrides)))
    assert [part for part in ["two_bones", "profile demo", *expected] if part not in str(error.value)] == []


def test_all_errors_of_a_file_are_told_at_once(refusal: Callable[..., str]) -> None:
    message = refusal(train__batch=0, train__loss="focal")
    assert "train.batch" in message
    assert "train.loss" in message


@pytest.mark.parametrize(("text", "expected"), [("a: [", "cannot be read as YAML"), ("- a\n", "got list")])
def test_file_that_is_no_mapping(tmp_path: Path, text: str, expected: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load_system(file)
    assert str(file) in str(error.value)
    assert expected in str(error.value)


def test_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_system(tmp_path / "nowhere.yaml")


def test_system_is_frozen(system: System) -> None:
    with pytest.raises(ValueError, match="frozen"):
        system.title = "other"


def test_profile_overrides_only_what_it_names(system: System) -> None:
    demo = system.with_profile("demo")
    assert demo.profile == "demo"
    assert demo.patch_voxels == (16, 16, 8)
    assert demo.train.epochs == 2
    assert demo.train.batch == system.train.batch
    assert demo.labels == system.labels
    assert system.train.epochs == 10


def test_profile_in_force_is_returned_as_it_is(system: System) -> None:
    assert system.with_profile("paper") is system
    demo = system.with_profile("demo")
    assert demo.with_profile("demo") is demo


def test_profile_of_a_profile_is_refused(system: System) -> None:
    with pytest.raises(ConfigError, match="no profile 'paper'"):
        system.with_profile("demo").with_profile("paper")


def test_unknown_profile_lists_the_known(system: System) -> None:
    with pytest.raises(ConfigError, match="two_bones: no profile 'fast'; profiles: paper, demo"):
        system.with_profile("fast")


def test_profile_changes_parameters_of_the_same_network(tmp_path: Path) -> None:
    system = load_system(write(tmp_path, changed(profiles__demo={"network": {"features": [4, 8]}})))
    network = system.with_profile("demo").network
    assert network.name == "plain_unet"
    assert network.parameters == {"features": [4, 8], "strides": [[1, 1, 1], [2, 2, 2]]}


def test_profile_with_another_network_drops_the_old_parameters(tmp_path: Path) -> None:
    system = load_system(write(tmp_path, changed(profiles__demo={"network": {"name": "vnet"}})))
    network = system.with_profile("demo").network
    assert network.name == "vnet"
    assert network.parameters == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"labels__kneecap": {"index": 3, "code": "99MSKLABEL:KNEECAP", "color": [0, 0, 0]}},
        {
            "labels": {
                "femur": {**MINIMAL["labels"]["femur"], "index": 2},
                "patella": {**MINIMAL["labels"]["patella"], "index": 1},
            }
        },
        {"network__features": [8, 32]},
        {"network__name": "vnet"},
        {"channels": ["mr"]},
        {"spacing_mm": [1.0, 1.0, None]},
        {"intensity__upper": 201},
        {"patch_voxels": [32, 32, 32]},
        {"laterality": "mirror_halves"},
        {"orientation": "LPS"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_fingerprint_changes_with_what_weights_depend_on(
    tmp_path: Path, system: System, changes: dict[str, Any]
) -> None:
    assert load_system(write(tmp_path, changed(**changes))).fingerprint != system.fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"train__epochs": 11},
        {"train__learning_rate": 0.1},
        {"title": "Other"},
        {"source": "Somebody"},
        {"labels__femur__color": [0, 0, 0]},
        {"labels__patella__code": "SCT:64234005"},
        {"groups": {}},
        {"predict__overlap": 0.25},
        {"postprocess__fill_holes": ["femur"]},
        {"quantities": ["volume_cm3"]},
        {"profiles": {}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_fingerprint_stays_with_what_they_do_not(tmp_path: Path, system: System, changes: dict[str, Any]) -> None:
    assert load_system(write(tmp_path, changed(**changes))).fingerprint == system.fingerprint


def test_fingerprint_is_stable_between_runs(system: System) -> None:
    # Stored weights carry it: a change of this value orphans every model that anyone has trained.
    assert len(system.fingerprint) == 12
    assert system.fingerprint == "49b02966dc97"
