"""Scans are made out of label maps: true HU, true fat fractions, the labels of a system on the same grid."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from msklabel.catalogue import load_catalogue
from msklabel.imaging.channels import read_channels
from msklabel_phantoms.label_anatomy import Anatomy, anatomy_of
from msklabel_phantoms.label_names import label_table, read_label_names, structure_of
from msklabel_phantoms.label_scan import DIXON_CHANNELS, synthesize

NAMES = {
    11: "Left Vastus Lateralis",
    12: "Right Vastus Lateralis",
    21: "Left Gluteus Maximus",
    22: "Right Gluteus Maximus",
    31: "Left Femur",
    32: "Right Femur",
    41: "Left Ilium",
    42: "Right Ilium",
    51: "Left Soleus",
}
SPACING_MM = (4.0, 4.0, 8.0)


def label_map() -> np.ndarray:
    """Two legs of two muscles around a femur, hip bones above; shape (90, 40, 40), 4 x 4 x 8 mm."""
    x, y, z = np.meshgrid(np.arange(90) * 4.0, np.arange(40) * 4.0, np.arange(40) * 8.0, indexing="ij")
    labels = np.zeros(x.shape, np.int16)
    for side, middle in ((1, 100.0), (2, 256.0)):
        leg = np.hypot(x - middle, y - 80) < 62
        labels[leg & (y > 80)] = 10 + side
        labels[leg & (y <= 80)] = 20 + side
        labels[(np.hypot(x - middle, y - 80) < 20) & (z < 240)] = 30 + side
        labels[(np.hypot(x - middle, y - 80) < 30) & (z >= 250)] = 40 + side
    labels[70:74, 30:33, :4] = 51
    return labels


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return anatomy_of(label_map(), SPACING_MM, (-178.0, -80.0, -400.0), NAMES)


VIEW = {"shape": (96, 60, 40), "spacing_mm": (5.0, 5.0, 8.0)}


def nearest_labels(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The label map on another grid, by the nearest voxel."""
    labels = label_map()
    index = []
    for axis, first in enumerate((-178.0, -80.0, -400.0)):
        mm = affine[axis, 3] + affine[axis, axis] * np.arange(shape[axis])
        index.append(np.rint((mm - first) / SPACING_MM[axis]).astype(int))
    inside = [(i >= 0) & (i < n) for i, n in zip(index, labels.shape, strict=True)]
    out = np.zeros(shape, int)
    out[np.ix_(*inside)] = labels[np.ix_(*(i[ok] for i, ok in zip(index, inside, strict=True)))]
    return out


def inner(labels: np.ndarray, *values: int) -> np.ndarray:
    """Voxels all of whose in-plane neighbours have the same label."""
    mask = np.isin(labels, values)
    for axis in (0, 1):
        for shift in (-1, 1):
            mask = mask & (np.roll(labels, shift, axis) == labels)
    return mask


def test_a_ct_has_the_density_of_each_tissue(anatomy: Anatomy) -> None:
    scan = synthesize(anatomy, "ct", seed=3, fat_percent=5, **VIEW)
    hu = scan.image[0]
    assert scan.image.shape == (1, 96, 60, 40)
    assert np.median(hu[0]) < -950  # air at the border
    assert 35 < np.median(hu[inner(scan.labels, 11, 12, 21, 22)]) < 60
    assert np.percentile(hu[np.isin(scan.labels, (31, 32, 41, 42))], 90) > 500
    body = hu > -300
    fat = body & (scan.labels == 0) & (hu > -140) & (hu < -70)
    assert fat.sum() > 0.15 * body.sum()  # under the skin all around
    assert 8 < np.std(hu[inner(scan.labels, 11, 12)]) < 30
    shaft = hu[..., 20][scan.labels[..., 20] == 31]
    assert shaft.max() > 600
    assert shaft.min() < 250  # marrow within the wall


def test_the_truth_is_the_label_map_on_the_grid_of_the_scan(anatomy: Anatomy) -> None:
    scan = synthesize(anatomy, "ct", **VIEW)
    nearest = nearest_labels(scan.affine, scan.labels.shape)
    for value in (11, 12, 21, 22, 31, 32):
        both = ((scan.labels == value) & (nearest == value)).sum()
        assert 2 * both / ((scan.labels == value).sum() + (nearest == value).sum()) > 0.93, value


def test_the_same_arguments_give_the_same_scan(anatomy: Anatomy) -> None:
    first, again, other = (synthesize(anatomy, "ct", seed=seed, **VIEW) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.image, again.image)
    assert (first.image != other.image).mean() > 0.3
    np.testing.assert_array_equal(first.labels, other.labels)


@pytest.mark.parametrize("percent", [5.0, 45.0])
def test_the_fat_fraction_of_each_muscle_is_known(anatomy: Anatomy, percent: float) -> None:
    scan = synthesize(anatomy, "dixon", seed=2, fat_percent=percent, **VIEW)
    water, fat = scan.image[2].astype(float), scan.image[3].astype(float)
    known = scan.facts["fat_percent"]
    assert sorted(known) == [11, 12, 21, 22, 51]
    for value in (11, 12, 21, 22):
        inside = scan.labels == value
        measured = 100 * (fat[inside] / (water[inside] + fat[inside])).mean()
        assert measured == pytest.approx(known[value], abs=1.5)
    assert np.mean([known[value] for value in (11, 12, 21, 22)]) == pytest.approx(percent + 5, abs=8)


def test_phases_are_those_of_water_and_fat(anatomy: Anatomy) -> None:
    scan = synthesize(anatomy, "dixon", seed=2, **VIEW)
    out_of_phase, in_phase, water, fat = scan.image.astype(float)
    bright = in_phase > 800
    assert np.abs(in_phase - water - fat)[bright].mean() < 60
    assert np.abs(out_of_phase - np.abs(water - fat))[bright].mean() < 60


def test_a_finer_grid_shows_the_same_person(anatomy: Anatomy) -> None:
    coarse = synthesize(anatomy, "ct", shape=(48, 30, 20), spacing_mm=(10, 10, 16))
    fine = synthesize(anatomy, "ct", shape=(96, 60, 40), spacing_mm=(5, 5, 8))
    pooled = fine.image[0].reshape(48, 2, 30, 2, 20, 2).mean(axis=(1, 3, 5))
    body = pooled > -500
    assert np.corrcoef(pooled[body], coarse.image[0][body])[0, 1] > 0.88


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"modality": "pet"}, "expected ct or dixon, got 'pet'"),
        ({"modality": "ct", "fat_percent": 0}, "expected 0.5 to 95"),
        ({"modality": "ct", "shape": (5, 5)}, "shape: expected three positive numbers"),
        ({"modality": "ct", "spacing_mm": (1, -1, 1)}, "spacing: expected three positive numbers"),
    ],
)
def test_what_cannot_be_is_refused(anatomy: Anatomy, options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        synthesize(anatomy, options.pop("modality"), **options)


def test_values_need_names() -> None:
    with pytest.raises(ValueError, match=r"no name for the voxel values \[51\]"):
        anatomy_of(label_map(), SPACING_MM, (0, 0, 0), {k: v for k, v in NAMES.items() if k != 51})
    with pytest.raises(ValueError, match="empty"):
        anatomy_of(np.zeros((4, 4, 4), int), SPACING_MM, (0, 0, 0), NAMES)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("   Left Psoas Major 5121\nSacrum 6160\n", {5121: "Left Psoas Major", 6160: "Sacrum"}),
        ("# comment\n1 femur left\n2 femur right\n", {1: "femur left", 2: "femur right"}),
        (
            '    0  0 0 0  0 0 0  "Clear Label"\n   55   222  184  135   1  1  1  "55 Vastus lateralis Left"\n',
            {55: "55 Vastus lateralis Left"},
        ),
    ],
)
def test_three_kinds_of_name_files_are_read(tmp_path: Path, text: str, names: dict[int, str]) -> None:
    (tmp_path / "names.txt").write_text(text)
    assert read_label_names(tmp_path / "names.txt") == names


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("femur\n", "line 1: expected a name and a number"),
        ("a 1\nb 1\n", "has a name already, 'a'"),
        ("#\n", "no names"),
    ],
)
def test_a_name_file_that_cannot_be_read_names_the_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(ValueError, match=says):
        read_label_names(tmp_path / "names.txt")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Left Gemelli and Quadratus Femoris", ("gemelli_and_quadratus_femoris", -1)),
        ("64 Satorius Right", ("satorius", 1)),
        ("Sacrum", ("sacrum", 0)),
    ],
)
def test_the_side_is_taken_off_a_name(name: str, expected: tuple[str, int]) -> None:
    assert structure_of(name) == expected


def test_structures_are_matched_with_a_system_and_the_rest_is_told() -> None:
    thigh_ct = load_catalogue(names=("thigh_ct",))["thigh_ct"].label_indices
    names = {
        1: "Left Psoas Major",
        2: "Right Ilium",
        3: "Left Biceps Femoris Short Head",
        4: "Sacrum",
        5: "64 Satorius",
    }
    table, lost, without = label_table(names, thigh_ct)
    labels = ("psoas", "iliac_bone", "biceps_femoris", "sartorius")
    assert [table.get(value) for value in (1, 2, 3, 5)] == [thigh_ct[label] for label in labels]
    assert lost == ["sacrum"]
    assert "rectus_abdominis" in without
    assert "psoas" not in without
    thigh_dixon = load_catalogue(names=("thigh_dixon",))["thigh_dixon"].label_indices
    assert label_table(names, thigh_dixon)[0][3] == thigh_dixon["biceps_femoris_short_head"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "msklabel", "synthesize", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "300"})


@pytest.fixture(scope="module")
def labelmap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The label map as a file whose axes run left, posterior and superior, with its names beside it."""
    folder = tmp_path_factory.mktemp("labelmap")
    affine = np.diag([-4.0, -4, 8, 1])
    affine[:3, 3] = (178, 76, -400)
    nib.save(nib.Nifti1Image(label_map()[::-1, ::-1], affine), folder / "legs.nii.gz")
    (folder / "label_ids.txt").write_text("".join(f"{name} {value}\n" for value, name in NAMES.items()))
    return folder / "legs.nii.gz"


def test_the_command_writes_channels_that_belong_together_and_the_truth(labelmap: Path, tmp_path: Path) -> None:
    options = ["--modality", "dixon", "--system", "thigh_dixon", "--shape", "64x40x20", "--seed", "4"]
    done = run(str(labelmap), *options, "-o", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "not in thigh_dixon: femur, ilium, soleus" in done.stdout
    assert "thigh_dixon has, the label map has not: rectus_femoris," in done.stdout
    scan = read_channels(tmp_path / "images" / "legs_dixon_4")
    assert scan.facts["channels"].split() == list(DIXON_CHANNELS)
    truth = nib.load(tmp_path / "truth" / "legs_dixon_4.nii.gz")
    assert truth.shape == scan.shape == (64, 40, 20)
    np.testing.assert_allclose(truth.affine, scan.affine, atol=1e-4)
    indices = load_catalogue(names=("thigh_dixon",))["thigh_dixon"].label_indices
    values = np.asarray(truth.dataobj)
    assert set(np.unique(values)) == {0, indices["vastus_lateralis"], indices["gluteus_maximus"]}
    # vastus lateralis lies in front of gluteus maximus in this label map, in the patient as in the file
    front, back = (np.argwhere(values == indices[n])[:, 1].mean() for n in ("vastus_lateralis", "gluteus_maximus"))
    assert front > back + 5
    facts = json.loads((tmp_path / "truth" / "legs_dixon_4.json").read_text())
    assert facts["synthetic"] is True
    assert 5 < facts["fat_percent"]["Left Vastus Lateralis"] < 35


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--modality", "pet"], "modality: expected ct or dixon, got 'pet'"),
        (["--modality", "ct", "--shape", "5x5"], "--shape: expected three positive whole numbers"),
        (["--modality", "ct", "--spacing", "1x1x0"], "--spacing: expected three positive numbers"),
        (["--modality", "ct", "--system", "thighs"], "no system 'thighs'"),
        (["--modality", "ct", "--names", "missing.txt"], "missing.txt: no file with the names"),
    ],
)
def test_a_command_that_cannot_be_done_is_one_sentence(
    labelmap: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    done = run(str(labelmap), *arguments, "-o", str(tmp_path / "out"))
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
