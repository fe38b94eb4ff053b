"""The synthetic radiographs are reproducible, anatomically plausible and read as any radiograph."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from msklabel.catalogue import load_catalogue
from msklabel.imaging import orientation_codes
from msklabel.imaging.read import read_scan
from msklabel.imaging.scan import Scan
from msklabel.pipeline.preprocess import Preprocess
from msklabel_phantoms.hip_radiograph import LABELS, generate_hip_radiograph
from msklabel_phantoms.phantom import Phantom
from msklabel_phantoms.write import generate

SEEDS = (0, 1, 2, 3)
# cm2 of both sides together, from a small woman's to a large man's magnified hips.
AREA_CM2 = {
    "proximal_femur_medullary": (80, 170),
    "proximal_femur_cortical": (14, 45),
    "koehler_teardrop": (1.2, 6),
    "joint_space": (4, 18),
    "pelvic_bone": (200, 460),
}


@pytest.fixture(scope="module")
def hips() -> dict[int, Phantom]:
    return {seed: generate("hip_radiograph", seed, 0) for seed in SEEDS}


def image_of(phantom: Phantom) -> np.ndarray:
    return phantom.image[0, :, :, 0]


def test_labels_are_those_of_the_system() -> None:
    assert load_catalogue(names=("hip_radiograph",))["hip_radiograph"].label_indices == LABELS


def test_same_seed_same_radiograph() -> None:
    first, again, other = (generate("hip_radiograph", seed, 0) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert first.facts == again.facts
    assert (first.labels != other.labels).mean() > 0.05


@pytest.mark.parametrize("seed", SEEDS)
def test_values_are_those_of_a_12_bit_detector(hips: dict[int, Phantom], seed: int) -> None:
    image = hips[seed].image
    assert image.shape == (1, 700, 520, 1)
    np.testing.assert_array_equal(image, np.rint(image))
    assert image.min() >= 0
    assert 2500 < image.max() <= 4095


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", LABELS)
def test_region_is_on_both_sides_and_as_large_as_its_fact_says(hips: dict[int, Phantom], seed: int, name: str) -> None:
    phantom = hips[seed]
    region = phantom.labels == LABELS[name]
    right, left = region[:350].sum(), region[350:].sum()
    assert 0.6 < right / left < 1.7
    lower, upper = AREA_CM2[name]
    assert lower < phantom.facts[f"{name}_cm2"] < upper
    assert phantom.facts[f"{name}_cm2"] == pytest.approx(region.sum() * 0.36 / 100, abs=0.01)


@pytest.mark.parametrize("seed", SEEDS)
def test_regions_lie_as_in_a_hip(hips: dict[int, Phantom], seed: int) -> None:
    """Rows run downwards; on the right side, at low columns, outwards is towards column 0."""
    labels = hips[seed].labels[:, :, 0]
    for half in (labels[:350], labels[:349:-1]):
        middle = {name: ndimage.center_of_mass(half == label) for name, label in LABELS.items()}
        assert middle["joint_space"][1] < middle["koehler_teardrop"][1]  # above
        assert middle["joint_space"][0] < middle["koehler_teardrop"][0]  # outside of
        assert middle["proximal_femur_medullary"][0] < middle["joint_space"][0] < middle["pelvic_bone"][0] + 60
        assert middle["pelvic_bone"][1] < middle["proximal_femur_cortical"][1]
        near = ndimage.binary_dilation(half == LABELS["joint_space"], iterations=3)
        for neighbour in ("proximal_femur_medullary", "koehler_teardrop", "pelvic_bone"):
            assert near[half == LABELS[neighbour]].any(), neighbour
        for label in (1, 3, 4):
            pieces, _ = ndimage.label(half == label)
            assert np.bincount(pieces.ravel())[1:].max() > 0.97 * (half == label).sum(), label


@pytest.mark.parametrize("seed", SEEDS)
def test_bone_is_brighter_than_what_is_beside_it(hips: dict[int, Phantom], seed: int) -> None:
    image, labels = image_of(hips[seed]), hips[seed].labels[:, :, 0]
    femur = np.isin(labels, (1, 2))
    beside = ndimage.binary_dilation(femur, iterations=15) & (labels == 0)
    below_joint = np.zeros_like(femur)
    below_joint[:, 330:480] = True
    assert image[(labels == 2) & below_joint].mean() > image[beside & below_joint].mean() + 250
    assert image[(labels == 2) & below_joint].mean() > image[(labels == 1) & below_joint].mean()
    space, roof = labels == 4, ndimage.binary_dilation(labels == 4, iterations=5) & (labels == 5)
    assert image[roof].mean() > image[space].mean()
    assert image[labels == 3].mean() > image[space].mean()


def test_areas_do_not_depend_on_the_pixels() -> None:
    coarse = generate_hip_radiograph(np.random.default_rng(3), shape=(350, 260, 1), spacing_mm=(1.2, 1.2, 1.0))
    fine = generate_hip_radiograph(np.random.default_rng(3), shape=(700, 520, 1), spacing_mm=(0.6, 0.6, 1.0))
    oblong = generate_hip_radiograph(np.random.default_rng(3), shape=(350, 520, 1), spacing_mm=(1.2, 0.6, 1.0))
    for name in LABELS:
        for other in (coarse, oblong):
            assert other.facts[f"{name}_cm2"] == pytest.approx(fine.facts[f"{name}_cm2"], rel=0.08), name
    assert (fine.labels[1::2, 1::2] == coarse.labels).mean() > 0.985


def test_affine_is_that_of_a_radiograph(hips: dict[int, Phantom]) -> None:
    phantom = hips[0]
    assert orientation_codes(phantom.affine) == "LPS"
    np.testing.assert_allclose(phantom.affine, np.diag([-0.6, -0.6, 1, 1]))


def test_a_png_of_it_is_prepared_like_the_phantom(tmp_path, hips: dict[int, Phantom]) -> None:
    phantom = hips[1]
    Image.fromarray(image_of(phantom).T.astype(np.uint16)).save(tmp_path / "a.png")
    preprocess = Preprocess(load_catalogue(names=("hip_radiograph",), profile="demo")["hip_radiograph"])
    read = preprocess(read_scan(tmp_path / "a.png", spacing_mm=(0.6, 0.6)))
    made = preprocess(Scan(phantom.image, phantom.affine))
    np.testing.assert_allclose(read.image, made.image, atol=1e-5)
    assert read.grid.native_shape == phantom.labels.shape


def test_exposures_vary() -> None:
    facts = [generate_hip_radiograph(np.random.default_rng(seed), shape=(16, 12, 1)).facts for seed in range(24)]
    assert {fact["collimated"] for fact in facts} == {"no", "bright", "dark"}
    assert {fact["marker"] for fact in facts} == {"none", "R", "L"}
    assert {fact["sex"] for fact in facts} == {"F", "M"}
    scales = [float(fact["scale"]) for fact in facts]
    assert max(scales) - min(scales) > 0.1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"shape": (0, 5, 1)}, r"three positive .* \(0, 5, 1\)"),
        ({"shape": (20, 20, 2)}, "one slice, got 2"),
        ({"spacing_mm": (0.6, 0.6)}, "three positive"),
    ],
)
def test_impossible_shapes_are_refused(options: dict[str, tuple[float, ...]], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        generate_hip_radiograph(np.random.default_rng(0), **options)
