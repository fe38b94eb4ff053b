"""The synthetic thighs and hips match their systems, and their facts match their voxels."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from msklabel.catalogue import load_catalogue
from msklabel_phantoms import hip_abductor_mr, thigh_ct, thigh_dixon
from msklabel_phantoms.hip_abductor_mr import generate_hip_abductor_mr
from msklabel_phantoms.phantom import Phantom
from msklabel_phantoms.sections import Space, section_distance
from msklabel_phantoms.shapes import bent_ellipse
from msklabel_phantoms.thigh_ct import generate_thigh_ct
from msklabel_phantoms.thigh_dixon import dixon_water_fat, generate_thigh_dixon
from msklabel_phantoms.write import generate

SYSTEMS = {"thigh_ct": thigh_ct, "thigh_dixon": thigh_dixon, "hip_abductor_mr": hip_abductor_mr}
THIGHS = ("thigh_ct", "thigh_dixon")
SEEDS = (0, 1, 2)
# Volume of both sides in cm³, from a slight old woman's to an athlete's.
VOLUME_CM3 = {
    "rectus_femoris": (250, 1000),
    "vastus_lateralis": (600, 2200),
    "adductor_magnus": (450, 1500),
    "gracilis": (80, 400),
    "sartorius": (150, 600),
    "gluteus_maximus": (700, 2700),
    "gluteus_minimus": (70, 330),
    "pectineus": (60, 260),
}


@pytest.fixture(scope="module")
def phantoms() -> dict[tuple[str, int], Phantom]:
    return {(system, seed): generate(system, seed, 0) for system in SYSTEMS for seed in SEEDS}


def centre_mm(phantom: Phantom, label: int, right: bool) -> np.ndarray:
    """Centre of one side's label in RAS mm."""
    voxels = np.argwhere(phantom.labels == label)
    places = voxels @ phantom.affine[:3, :3].T + phantom.affine[:3, 3]
    return places[(places[:, 0] > 0) == right].mean(axis=0)


@pytest.mark.parametrize(("system", "module"), SYSTEMS.items())
def test_labels_are_the_systems(system: str, module: ModuleType) -> None:
    loaded = load_catalogue(names=[system])[system]
    assert loaded.label_indices == module.LABELS
    image = generate(system, 0, 0, shape=(8, 6, 4), spacing_mm=(50, 40, 100)).image
    assert len(image) == len(loaded.channels)


@pytest.mark.parametrize("system", THIGHS)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_label_is_on_both_sides(phantoms: dict[tuple[str, int], Phantom], system: str, seed: int) -> None:
    labels = phantoms[system, seed].labels
    middle = labels.shape[0] // 2
    for name, index in SYSTEMS[system].LABELS.items():
        left, right = (int((half == index).sum()) for half in (labels[:middle], labels[middle:]))
        assert min(left, right) >= 30, name
        assert 0.6 < left / right < 1.7, name
    assert labels.max() == len(SYSTEMS[system].LABELS)


@pytest.mark.parametrize("seed", SEEDS)
def test_volumes_are_plausible(phantoms: dict[tuple[str, int], Phantom], seed: int) -> None:
    for system in THIGHS:
        for name, (lower, upper) in VOLUME_CM3.items():
            assert lower < float(phantoms[system, seed].facts[f"{name}_cm3"]) < upper, (system, name)


def test_volume_facts_count_the_voxels(phantoms: dict[tuple[str, int], Phantom]) -> None:
    for (system, _), phantom in phantoms.items():
        voxel_cm3 = np.prod(phantom.spacing_mm) / 1000
        for name, index in SYSTEMS[system].LABELS.items():
            counted = (phantom.labels == index).sum() * voxel_cm3
            assert phantom.facts[f"{name}_cm3"] == pytest.approx(counted, abs=0.01)


def test_volumes_do_not_depend_on_the_voxels() -> None:
    coarse = generate_thigh_ct(np.random.default_rng(3), shape=(96, 64, 48), spacing_mm=(4.5, 4.5, 12))
    fine = generate_thigh_ct(np.random.default_rng(3), shape=(192, 128, 72), spacing_mm=(2.25, 2.25, 8))
    assert fine.facts["patient_id"] == coarse.facts["patient_id"]
    for name in thigh_ct.LABELS:
        assert fine.facts[f"{name}_cm3"] == pytest.approx(coarse.facts[f"{name}_cm3"], rel=0.12), name
    assert fine.facts["muscle_mean_hu"] == pytest.approx(coarse.facts["muscle_mean_hu"], abs=5)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("right", (True, False))
def test_muscles_lie_where_they_belong(phantoms: dict[tuple[str, int], Phantom], seed: int, right: bool) -> None:
    phantom = phantoms["thigh_ct", seed]
    at = {name: centre_mm(phantom, index, right) for name, index in thigh_ct.LABELS.items()}
    lateral = 1 if right else -1

    def in_front(first: str, second: str) -> bool:
        return at[first][1] > at[second][1] + 5

    def outside(first: str, second: str) -> bool:
        return lateral * at[first][0] > lateral * at[second][0] + 5

    def above(first: str, second: str) -> bool:
        return at[first][2] > at[second][2] + 5

    assert in_front("rectus_femoris", "femur")
    assert in_front("femur", "biceps_femoris")
    assert in_front("rectus_femoris", "vastus_intermedius")
    assert in_front("rectus_abdominis", "multifidus")
    assert outside("vastus_lateralis", "femur")
    assert outside("femur", "vastus_medialis")
    assert outside("adductor_longus", "gracilis")
    assert outside("biceps_femoris", "semimembranosus")
    assert outside("gluteus_medius", "gluteus_minimus")
    assert outside("gluteus_minimus", "iliacus")
    assert above("iliac_bone", "pectineus")
    assert above("pectineus", "adductor_brevis")
    assert above("adductor_brevis", "adductor_magnus")
    assert above("iliacus", "iliopsoas")


@pytest.mark.parametrize("seed", SEEDS)
def test_ct_has_the_density_of_its_tissues(phantoms: dict[tuple[str, int], Phantom], seed: int) -> None:
    phantom = phantoms["thigh_ct", seed]
    hu, labels = phantom.image[0], phantom.labels
    muscle = (labels > 0) & (labels < thigh_ct.LABELS["femur"])
    assert hu[muscle].mean() == pytest.approx(phantom.facts["muscle_mean_hu"], abs=3)
    assert 15 < hu[muscle].mean() < 60
    assert hu[labels == thigh_ct.LABELS["femur"]].mean() > 200
    assert hu[:2].mean() == pytest.approx(-1000, abs=30)
    assert ((hu > -125) & (hu < -75) & (labels == 0)).mean() > 0.03


def test_in_and_out_of_phase_are_sum_and_difference() -> None:
    maps = dixon_water_fat(np.random.default_rng(2))
    phantom = generate_thigh_dixon(np.random.default_rng(2))
    np.testing.assert_array_equal(phantom.labels, maps.labels)
    out, together = phantom.image
    water, fat = maps.image
    body = water + fat > 800
    sensitivity = together[body] / (water + fat)[body]
    assert 0.5 < sensitivity.min() < sensitivity.max() < 2
    expected_out = np.abs(water - fat)[body] * sensitivity
    assert np.abs(out[body] - expected_out).mean() < 2 * float(phantom.facts["noise_sd"])
    assert phantom.image.min() >= 0
    assert phantom.image.max() <= 4095


@pytest.mark.parametrize("stage", ("low", "high"))
def test_fat_fractions_match_the_signal(stage: str) -> None:
    maps = dixon_water_fat(np.random.default_rng(4), stage=stage)
    water, fat = maps.image
    assert water.min() >= 0
    assert fat.min() >= 0
    for name, index in thigh_dixon.LABELS.items():
        inside = maps.labels == index
        measured = 100 * (fat[inside] / (water + fat)[inside]).mean()
        assert measured == pytest.approx(maps.facts[f"{name}_fat_fraction_percent"], abs=1), name
    assert maps.facts["stage"] == stage


def test_fat_fractions_survive_the_scanner_where_water_dominates() -> None:
    phantom = generate_thigh_dixon(np.random.default_rng(4), stage="low")
    out, together = phantom.image
    inside = np.isin(phantom.labels, list(thigh_dixon.LABELS.values()))
    water, fat = dixon_water_fat(np.random.default_rng(4), stage="low").image
    inside &= water > 1.3 * fat
    measured = (together - out)[inside].sum() / (2 * together[inside].sum())
    assert 100 * measured == pytest.approx(100 * fat[inside].sum() / (water + fat)[inside].sum(), abs=1)


def test_stages_part_at_twenty_percent() -> None:
    def means(stage: str) -> list[float]:
        rngs = (np.random.default_rng(seed) for seed in range(5))
        small = {"shape": (96, 56, 18), "spacing_mm": (4.8, 4.8, 30)}
        return [float(dixon_water_fat(rng, stage=stage, **small).facts["fat_fraction_percent"]) for rng in rngs]

    low, high = means("low"), means("high")
    assert max(low) < 20 < min(high)
    assert max(high) - min(high) > 10


def test_muscles_differ_in_fat_and_hold_it_in_patches() -> None:
    maps = dixon_water_fat(np.random.default_rng(6), stage="high")
    percents = [float(maps.facts[f"{name}_fat_fraction_percent"]) for name in thigh_dixon.LABELS]
    assert max(percents) - min(percents) > 20
    water, fat = maps.image
    inside = maps.labels == thigh_dixon.LABELS["vastus_lateralis"]
    assert (fat[inside] / (water + fat)[inside]).std() > 0.08


def test_hip_is_one_side_of_the_body_and_says_which(phantoms: dict[tuple[str, int], Phantom]) -> None:
    few = [generate_hip_abductor_mr(np.random.default_rng(seed), shape=(20, 22, 24), spacing_mm=(8, 8, 6))
           for seed in range(6)]  # fmt: skip
    assert {phantom.facts["side"] for phantom in few} == {"right", "left"}
    for phantom in (*few, *(phantoms["hip_abductor_mr", seed] for seed in SEEDS)):
        right = phantom.facts["side"] == "right"
        middle_x_mm = phantom.affine[0] @ (*(np.array(phantom.labels.shape) - 1) / 2, 1)
        assert (middle_x_mm > 0) == right
        at = {name: centre_mm(phantom, index, right) for name, index in hip_abductor_mr.LABELS.items()}
        assert at["tensor_fasciae_latae"][1] > at["gluteus_minimus"][1] > at["gluteus_medius"][1]
        assert abs(at["gluteus_medius"][0]) > abs(at["gluteus_minimus"][0])
    for seed in SEEDS:
        assert np.bincount(phantoms["hip_abductor_mr", seed].labels.ravel())[1:].min() > 300


def test_fat_is_brighter_than_muscle_on_the_hip(phantoms: dict[tuple[str, int], Phantom]) -> None:
    for seed in SEEDS:
        phantom = phantoms["hip_abductor_mr", seed]
        image = phantom.image[0]
        assert np.percentile(image, 98) > 1.8 * np.median(image[phantom.labels > 0])
        assert 3 < float(phantom.facts["gluteus_medius_fat_percent"]) < 50


@pytest.mark.parametrize("generator", (generate_thigh_ct, generate_thigh_dixon, generate_hip_abductor_mr))
def test_impossible_sizes_are_refused(generator: type) -> None:
    with pytest.raises(ValueError, match="three positive"):
        generator(np.random.default_rng(0), shape=(5, 5, 0))
    with pytest.raises(ValueError, match="three positive"):
        generator(np.random.default_rng(0), spacing_mm=(1, 1))


def test_an_unknown_stage_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'late'; there are: low, high"):
        generate_thigh_dixon(np.random.default_rng(0), stage="late")


def test_sections_are_evaluated_wherever_they_are_near() -> None:
    rows = ((40.0, 10.0, 5.0, 30.0, 6.0, 60.0, 0.004), (-40.0, -10.0, -5.0, 20.0, 8.0, 100.0, -0.002))
    axis = np.linspace(-80, 80, 41, dtype=np.float32)
    u, v = (np.broadcast_to(values, (41, 41, 41)) for values in (axis[:, None, None], axis[None, :, None]))
    box, distance = section_distance(Space(u, v, axis), rows, swell_mm=2.0)
    centre = [np.interp(axis, (-40, 40), (low, high)) for high, low in zip(rows[0][1:], rows[1][1:], strict=True)]
    centre[4] = np.deg2rad(centre[4])
    everywhere = bent_ellipse(u, v, *centre) + np.maximum(np.abs(axis) - 40, 0) - 2
    np.testing.assert_allclose(distance, everywhere[box], atol=1e-3)
    outside = np.ones(u.shape, bool)
    outside[box] = False
    assert everywhere[outside].min() > 0
