"""Every system under configs/: it loads, its codes are right, its figures are its paper's."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydicom.sr._concepts_dict import concepts

from msklabel.system import System, load_system

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
SYSTEMS = {file.stem: load_system(file) for file in CONFIGS}
PROFILES = [(name, profile) for name, system in SYSTEMS.items() for profile in system.profile_names]
PLAIN_UNETS = [pair for pair in PROFILES if SYSTEMS[pair[0]].with_profile(pair[1]).network.name == "plain_unet"]

# SNOMED CT codes that may be used, beside those in the DICOM Standard as pydicom has them.
SCT_MEANING = {
    "71341001": "femur",
    "310651003": "proximal femur",
    "41111004": "shaft of femur",
    "2812003": "head of femur",
    "55499008": "lesser trochanter",
    "22356005": "ilium",
    "37783008": "acetabulum",
    "29836001": "hip",
    "14016003": "bone marrow",
    "127954009": "skeletal muscle",
    "102292000": "muscle of lower limb",
    "71966008": "subcutaneous tissue",
    "67769002": "subcutaneous fatty tissue",
    "55603005": "fat",
    "181674001": "gluteus maximus",
    "78333006": "gluteus medius",
    "75297007": "gluteus minimus",
    "68455001": "iliopsoas",
}
# All meanings of a code in the DICOM Standard, in lower case.
IN_DICOM: dict[str, set[str]] = {}
for by_code in concepts["SCT"].values():
    for code, (meaning, _) in by_code.items():
        IN_DICOM.setdefault(code, set()).add(meaning.lower())
# Labels whose name says the same as the code's meaning in other words.
SYNONYMS = {
    "iliac_bone": "ilium",
    "muscle": "skeletal muscle",
    "subcutaneous_adipose_tissue": "subcutaneous fatty tissue",
}

# The figures that the papers give; what a paper is silent about is left out.
PAPERS: dict[str, dict[str, Any]] = {
    "thigh_ct": {
        "train": {"loss": "dice", "optimizer": "adamw", "learning_rate": 8e-5, "weight_decay": 1e-5, "batch": 2}
        | {"epochs": 5000, "crops_per_scan": 4},
        "network": "unetr",
        "patch_voxels": (96, 96, 96),
        "spacing_mm": (1.5, 1.5, 2.0),
        "labels": 29,
    },
    "hip_abductor_mr": {
        "train": {"loss": "dice", "optimizer": "adam", "learning_rate": 1e-4, "batch": 3},
        "network": "vnet",
        "labels": 3,
    },
    "hip_tissue_ct": {
        "train": {"loss": "cross_entropy", "optimizer": "adam", "learning_rate": 1e-4, "batch": 2}
        | {"epochs": 200, "folds": 10},
        "network": "dense_unet",
        "patch_voxels": (512, 512, 1),
        "labels": 7,
    },
    "hip_radiograph": {
        "train": {"loss": "dice_cross_entropy", "optimizer": "sgd", "learning_rate": 0.01, "weight_decay": 3e-5}
        | {"momentum": 0.99, "schedule": "polynomial", "batch": 2, "epochs": 1000, "folds": 5}
        | {"deep_supervision": True},
        "network": "plain_unet",
        "patch_voxels": (1024, 1536, 1),
        "spacing_mm": (0.15, 0.15, None),
        "labels": 5,
    },
    "thigh_dixon": {
        "train": {"loss": "cross_entropy", "optimizer": "adam", "learning_rate": 1e-4, "schedule": "plateau"}
        | {"plateau_epochs": 25, "batch": 1, "epochs": 160, "folds": 5, "crops_per_scan": 2, "stop_epochs": None},
        "network": "plain_unet",
        "patch_voxels": (192, 384, 81),
        "spacing_mm": (1.2, 1.2, 2.0),
        "labels": 18,
    },
}


def total_stride(system: System) -> tuple[int, ...]:
    """By how much the network divides each axis of its patch."""
    parameters = system.network.parameters
    if "strides" in parameters:
        return tuple(math.prod(steps) for steps in zip(*parameters["strides"], strict=True))
    by_name = {"unetr": 16, "vnet": 16, "dense_unet": 2 ** (parameters.get("levels", 1) - 1)}
    return (by_name[system.network.name],) * system.dimensions


def test_all_five_systems_are_there() -> None:
    assert set(PAPERS) <= set(SYSTEMS)


@pytest.mark.parametrize(("name", "profile"), PROFILES)
def test_profile_loads(name: str, profile: str) -> None:
    assert SYSTEMS[name].with_profile(profile).profile == profile


@pytest.mark.parametrize("name", SYSTEMS)
def test_has_a_demo_of_the_same_shape(name: str) -> None:
    paper, demo = SYSTEMS[name], SYSTEMS[name].with_profile("demo")
    assert demo.labels == paper.labels
    assert demo.channels == paper.channels
    assert demo.dimensions == paper.dimensions
    assert demo.network.name == {"unetr": "plain_unet"}.get(paper.network.name, paper.network.name)
    assert demo.train.loss in (paper.train.loss, "dice_cross_entropy")  # the paper's loss, or with the other half
    assert math.prod(demo.patch_voxels) <= math.prod(paper.patch_voxels) / 8
    assert demo.train.epochs < paper.train.epochs


@pytest.mark.parametrize(("name", "profile"), PROFILES)
def test_patch_divides_by_the_networks_stride(name: str, profile: str) -> None:
    system = SYSTEMS[name].with_profile(profile)
    patch = system.patch_voxels[: system.dimensions]
    assert [size % step for size, step in zip(patch, total_stride(system), strict=True)] == [0] * system.dimensions


@pytest.mark.parametrize(("name", "profile"), PLAIN_UNETS)
def test_plain_unet_lists_agree(name: str, profile: str) -> None:
    system = SYSTEMS[name].with_profile(profile)
    parameters = system.network.parameters
    assert len(parameters["features"]) == len(parameters["strides"])
    assert {len(stride) for stride in parameters["strides"]} == {system.dimensions}
    assert set(parameters["strides"][0]) == {1}
    if isinstance(parameters["convolutions"], list):
        assert len(parameters["convolutions"]) == len(parameters["features"])


@pytest.mark.parametrize("name", SYSTEMS)
def test_groups_name_labels_once(name: str) -> None:
    system = SYSTEMS[name]
    for group, members in system.groups.items():
        assert members, group
        assert len(set(members)) == len(members), group
        assert set(members) <= set(system.labels), group


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_label_names_are_written_once(file: Path) -> None:
    # YAML keeps the last of two equal keys without a word, so the tree before that is checked.
    tree = yaml.compose(file.read_text(encoding="utf-8"))
    labels = next(value for key, value in tree.value if key.value == "labels")
    assert [key.value for key, _ in labels.value] == list(SYSTEMS[file.stem].labels)


@pytest.mark.parametrize("name", SYSTEMS)
def test_colours_can_be_told_apart(name: str) -> None:
    colours = {label: entry.color for label, entry in SYSTEMS[name].labels.items()}
    for (first, one), (second, other) in itertools.combinations(colours.items(), 2):
        assert math.dist(one, other) >= 30, (first, second)


@pytest.mark.parametrize("name", SYSTEMS)
def test_codes_mean_their_labels(name: str) -> None:
    for label, entry in SYSTEMS[name].labels.items():
        scheme, value = entry.code.split(":")
        if scheme == "99MSKLABEL":
            assert value == label.upper()
            continue
        allowed = IN_DICOM.get(value, set()) | {SCT_MEANING.get(value, "")}
        assert SYNONYMS.get(label, label.replace("_", " ")) in allowed, (label, value)


@pytest.mark.parametrize("code", sorted(set(SCT_MEANING) & set(IN_DICOM)))
def test_table_agrees_with_dicom(code: str) -> None:
    assert any(SCT_MEANING[code] in meaning for meaning in IN_DICOM[code])


def test_one_name_has_one_code_and_one_colour_in_all_systems() -> None:
    codes: dict[str, str] = {}
    names: dict[str, str] = {}
    colours: dict[str, tuple[int, int, int]] = {}
    for system in SYSTEMS.values():
        for name, label in system.labels.items():
            assert codes.setdefault(name, label.code) == label.code, (system.name, name)
            assert names.setdefault(label.code, name) == name, (system.name, label.code)
            assert colours.setdefault(name, label.color) == label.color, (system.name, name)


@pytest.mark.parametrize("name", PAPERS)
def test_figures_are_the_papers(name: str) -> None:
    system, paper = SYSTEMS[name], PAPERS[name]
    assert {key: getattr(system.train, key) for key in paper["train"]} == paper["train"]
    assert system.network.name == paper["network"]
    assert len(system.labels) == paper["labels"]
    for key in ("patch_voxels", "spacing_mm"):
        assert getattr(system, key) == paper.get(key, getattr(system, key)), key


def test_thigh_ct_has_27_muscles_in_five_groups() -> None:
    system = SYSTEMS["thigh_ct"]
    assert {group: len(members) for group, members in system.groups.items()} == {
        "anterior": 5,
        "medial": 5,
        "posterior": 3,
        "gluteal": 8,
        "else": 6,
    }
    assert set(system.labels) - {name for members in system.groups.values() for name in members} == {
        "femur",
        "iliac_bone",
    }
    assert system.intensity.model_dump() == {"kind": "window", "lower": -57, "upper": 164, "gamma": 2}
    assert system.network.parameters["hidden_size"] == 768


def test_hip_tissue_ct_has_the_papers_thresholds() -> None:
    system = SYSTEMS["hip_tissue_ct"]
    assert system.thresholds is not None
    assert system.thresholds.hu == {
        "cortical_lower_hu": 300,
        "trabecular_lower_hu": 150,
        "marrow_lower_hu": 50,
        "muscle_lower_hu": -30,
        "muscle_upper_hu": 500,
        "fat_upper_hu": -30,
    }


def test_hip_radiograph_is_nnunets_nine_stages() -> None:
    network = SYSTEMS["hip_radiograph"].network.parameters
    assert network["features"] == [min(32 * 2**stage, 512) for stage in range(9)]
    assert network["convolutions"] == 2
    assert SYSTEMS["hip_radiograph"].laterality == "mirror_halves"


def test_thigh_dixon_is_one_network_for_both_sides() -> None:
    system = SYSTEMS["thigh_dixon"]
    assert system.laterality == "mirror_halves"
    assert system.channels == ("out_of_phase", "in_phase")
    assert system.network.parameters["convolutions"][-1] == 4
    assert system.predict.ensemble == "majority"
    assert set(system.postprocess.largest_component) == set(system.postprocess.fill_holes) == set(system.labels)


def test_thigh_dixon_high_infiltration_starts_from_low_infiltration_weights() -> None:
    paper = SYSTEMS["thigh_dixon"]
    fine_tuned = paper.with_variant("high_infiltration")
    assert (fine_tuned.train.epochs, fine_tuned.train.stop_epochs) == (500, 40)
    assert fine_tuned.fingerprint == paper.fingerprint
