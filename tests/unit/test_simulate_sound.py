"""A simulation says of which scans its numbers are, compares like with like, and prints names whole."""

from __future__ import annotations

import io
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from dicom_samples import series
from rich.console import Console
from store_samples import TISSUES, write
from test_preprocess import body_in_air, make_system
from test_simulate import SETTING, TOY, case

import msklabel.cli.simulate as command
from msklabel.choose.simulate.judge import Judge
from msklabel.choose.simulate.run import Cell, _begin_process, run_cells, save_cases
from msklabel.choose.simulate.scans import Case, LabelledScan, _pairs, folder_key, prepare, read_folder
from msklabel.choose.simulate.statistics import comparisons, penalty_matrix, read_points
from msklabel.choose.simulate.train import _crop, _parts, train
from msklabel.durable import replace_text
from msklabel.errors import UserError
from msklabel.imaging import LabelMap, Scan
from msklabel.imaging.dicom import series_files
from msklabel.imaging.read import read_scan
from msklabel.imaging.seg_write import Drawn, write_seg
from msklabel.imaging.write import write_labels
from msklabel.learn.annotation import UNKNOWN
from msklabel_phantoms.write import save_nifti

STRATEGIES = ("auto", "predicted_foreground", "predictive_entropy", "stochastic_batches")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two scans with their labels."""
    for name in ("images", "truth"):
        (tmp_path / name).mkdir()
    for number in range(2):
        hu, labels = body_in_air((24, 22, 6))
        save_nifti(hu.astype(np.int16), np.eye(4), tmp_path / "images" / f"s{number}.nii.gz")
        save_nifti(labels, np.eye(4), tmp_path / "truth" / f"s{number}.nii.gz")
    return tmp_path


def owners(folder: Path) -> list[tuple[str, str]]:
    return [(one.patient, one.site) for one in read_folder(TOY, folder)]


def test_ctrl_c_ends_the_cells_that_wait_as_well() -> None:
    started = time.monotonic()
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=_begin_process) as pool:
        process = pool.submit(os.getpid).result()
        waiting = [pool.submit(time.sleep, 60) for _ in range(3)]
        os.kill(process, signal.SIGINT)
        assert all(isinstance(one.exception(), BrokenProcessPool) for one in waiting)
    assert time.monotonic() - started < 60


def test_results_of_other_scans_or_another_recipe_are_not_taken_for_these(tmp_path: Path) -> None:
    for name in ("cases-a.pt", "cases-b.pt"):
        save_cases(tmp_path / name, [case(number) for number in range(5)])
    cells = [Cell("toy", "random", 0)]
    played = [({"toy": TOY}, {"toy": tmp_path / f"cases-{name}.pt"}, SETTING, tmp_path / "cells", 1) for name in "ab"]
    assert len(list(run_cells(cells, *played[0]))) == 1
    with pytest.raises(UserError, match="on other scans"):
        list(run_cells(cells, *played[1]))
    assert list(run_cells(cells, *played[0])) == []
    quicker = TOY.model_copy(update={"train": TOY.train.model_copy(update={"learning_rate": 0.5})})
    with pytest.raises(UserError, match="another configuration"):
        list(run_cells(cells, {"toy": quicker}, *played[0][1:]))


def test_a_pool_is_another_one_when_something_in_it_changes(folder: Path) -> None:
    before = folder_key(TOY, folder)
    assert folder_key(TOY, folder) == before
    replace_text(folder / "facts.csv", "image,patient\ns0.nii.gz,p\n")
    with_facts = folder_key(TOY, folder)
    save_nifti(np.zeros((24, 22, 6), np.uint8), np.eye(4), folder / "truth" / "s1.nii.gz")
    assert len({before, with_facts, folder_key(TOY, folder)}) == 3


@pytest.mark.parametrize("column", ["patient", "patient_id"])
@pytest.mark.parametrize("suffix", ["", ".nii.gz"])
def test_scans_of_one_patient_are_known_as_such(folder: Path, column: str, suffix: str) -> None:
    rows = "".join(f"s{number}{suffix},p,a\n" for number in range(2))
    replace_text(folder / "facts.csv", f"image,{column},site\n{rows}")
    assert owners(folder) == [("p", "a"), ("p", "a")]


def test_facts_of_other_scans_and_labels_beside_their_scan_are_refused(folder: Path) -> None:
    assert owners(folder) == [("s0.nii.gz", ""), ("s1.nii.gz", "")]
    replace_text(folder / "facts.csv", "scan,patient\ns0,p\n")
    with pytest.raises(UserError, match="names none of the scans in its column 'image'"):
        owners(folder)
    (folder / "facts.csv").unlink()
    save_nifti(np.zeros((24, 22, 5), np.uint8), np.eye(4), folder / "truth" / "s1.nii.gz")
    with pytest.raises(UserError, match=r"s1\.nii\.gz: the label does not lie on its scan"):
        owners(folder)


def test_a_pool_may_hold_what_the_datastore_reads(folder: Path) -> None:
    reference, _ = read_folder(TOY, folder)
    nifti = {name: folder / name / "s0.nii.gz" for name in ("images", "truth")}
    for suffix in (".nrrd", ".mha"):
        for name, file in nifti.items():
            write(folder / name / f"other{suffix}", read_scan(file).array[0])
        found = {one.id: one for one in read_folder(TOY, folder)}[f"other{suffix}"]
        assert np.array_equal(found.scan.array, reference.scan.array)
        assert np.array_equal(found.labels, reference.labels)
        for name in nifti:
            (folder / name / f"other{suffix}").unlink()


def test_a_pool_may_hold_dicom_series_whose_headers_say_whose_they_are(folder: Path) -> None:
    for name in ("a", "b"):
        series(folder / "images" / "site" / name, patient="P7")
    scan = read_scan(folder / "images" / "site" / "a")
    (folder / "truth" / "site").mkdir()
    drawn = np.ones(scan.shape, np.uint8)
    for name in ("a", "b"):
        write_labels(folder / "truth" / "site" / f"{name}.nii.gz", LabelMap(drawn, scan.affine))
    replace_text(folder / "facts.csv", "image,patient\nsite/b,P8\n")
    found = {one.id: one for one in read_folder(TOY, folder)}
    assert [found[name].patient for name in ("site/a", "site/b", "s0.nii.gz")] == ["P7", "P8", "s0.nii.gz"]
    assert np.array_equal(found["site/a"].scan.array, scan.array) and found["site/a"].labels.all()
    before = folder_key(TOY, folder)
    os.utime(next((folder / "images" / "site" / "a").iterdir()), (0, 0))
    assert folder_key(TOY, folder) != before


def test_files_of_two_channels_are_one_scan_of_a_pool(folder: Path) -> None:
    system = make_system(channels=["water", "fat"], modality=["MR"], intensity={"kind": "zscore"})
    for channel in system.channels:
        write(folder / "images" / f"p_{channel}.nii", np.ones((8, 7, 5), np.int16))
    label = (folder / "truth" / "s0.nii.gz").read_bytes()
    for name in ("p.nii.gz", "p_water.nii.gz"):
        (folder / "truth" / name).write_bytes(label)
        pairs = _pairs(system, folder)
        assert [(pair.name, pair.truth.name) for pair in pairs if pair.name.startswith("p_")] == [("p_water.nii", name)]
        (folder / "truth" / name).unlink()


def test_what_a_pool_cannot_hold_is_named(folder: Path) -> None:
    (folder / "truth" / "s1.nrrd").write_bytes(b"")
    with pytest.raises(UserError, match=r"truth: image 's1.nrrd' left out: 's1.nii.gz' has the same id"):
        owners(folder)
    (folder / "truth" / "s1.nrrd").unlink()
    (folder / "images" / "s1.nii.gz").write_bytes(b"cut off")
    with pytest.raises(UserError, match=r"s1\.nii\.gz: cannot be read as an image"):
        owners(folder)
    series(folder / "images" / "s1")
    sources = [pydicom.dcmread(file) for file in series_files(folder / "images" / "s1")]
    (folder / "images" / "s1.nii.gz").unlink()
    (folder / "truth" / "s1.nii.gz").unlink()
    labels = LabelMap(np.ones((20, 16, 6), np.uint8), read_scan(folder / "images" / "s1").affine)
    drawn = write_seg(labels, sources, TISSUES.labels, Drawn("MANUAL", TISSUES.name), TISSUES.name)
    drawn.save_as(folder / "truth" / "s1.dcm")
    with pytest.raises(UserError, match=r"s1\.dcm: is a DICOM Segmentation; a true label is a label map"):
        owners(folder)


def test_where_the_network_did_not_look_there_is_no_doubt() -> None:
    labelled = LabelledScan("s", "p", "", *scan_and_labels())
    hole = prepare(TOY, labelled)
    hole.prepared.image[..., 2] = hole.prepared.image.min()  # of a slice of air no window is predicted
    judged = Judge(TOY, train(TOY, [hole], {0: {3}}, 2, 0))(hole)
    assert judged.entropy[2] == judged.information[2] == 0 < judged.entropy[3]


def scan_and_labels() -> tuple[Scan, np.ndarray]:
    hu, labels = body_in_air((24, 22, 8))
    return Scan(hu[None], np.eye(4)), labels


def test_a_network_for_right_sides_learns_from_sides() -> None:
    system = make_system(laterality="mirror_halves", spacing_mm=[None] * 3)
    hu, labels = body_in_air((60, 22, 8))
    labels[:30][labels[:30] == 1] = 2  # the dense core counts on the right only
    one: Case = prepare(system, LabelledScan("s", "p", "", Scan(hu[None], np.eye(4)), labels))
    assert one.prepared.sides is not None
    parts = _parts(system, one, {3, 4})
    assert [part.image.shape[1] for part in parts] == [one.prepared.sides.half_width] * 2
    left, right = (part.labels for part in parts)
    for known in (left, right):
        drawn = [z for z in range(known.shape[2]) if (known[:, :, z] != UNKNOWN).all()]
        assert drawn == [3, 4] and (np.delete(known, drawn, axis=2) == UNKNOWN).all()
    assert set(torch.unique(right[..., 3:5]).tolist()) - set(torch.unique(left[..., 3:5]).tolist()) == {1}


@pytest.mark.parametrize(("windows", "first"), [("spread", 0), ("from_edge", 3)])
def test_what_is_drawn_stays_on_its_slices_in_a_scan_that_is_filled_up(windows: str, first: int) -> None:
    volume = {"dimensions": 3, "patch_voxels": [16, 16, 12], "network": {"name": "vnet"}}
    system = make_system(spacing_mm=[None] * 3, predict={"windows": windows}, **volume)
    hu, labels = body_in_air((20, 22, 6))
    one: Case = prepare(system, LabelledScan("s", "p", "", Scan(hu[None], np.eye(4)), labels))
    (part,) = _parts(system, one, {1, 4})
    assert part.image.shape[1:] == part.labels.shape == (20, 22, 12)
    image, known = _crop(system, part, 4, np.random.default_rng(0))
    assert image.shape[1:] == known.shape == (16, 16, 12)
    assert [z for z in range(12) if (known[..., z] != UNKNOWN).all()] == [first + 1, first + 4]
    inside = slice(first, first + 6)
    assert torch.equal(part.image[..., inside], one.prepared.image)
    drawn = [first + 1, first + 4]
    assert torch.equal(part.labels[..., drawn], torch.from_numpy(one.labels[..., [1, 4]]).long())


def test_a_test_set_without_labels_is_told(tmp_path: Path) -> None:
    replace_text(
        tmp_path / "toy-random-000.json",
        '{"system": "toy", "strategy": "random", "seed": 0, "seconds": 1, "points": [{"dice": {"a": NaN}}]}',
    )
    with pytest.raises(UserError, match="no label at all"):
        read_points(tmp_path)


def points(system: str, strategies: tuple[str, ...]) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {"system": system, "strategy": name, "seed": seed, "round": number}
        | {"dice": (0.8 if name == "auto" else 0.5) + rng.normal(0, 0.01), "worst": 0.1}
        | {"slices": 12.0, "share": 0.2, "voxels": 1000.0, "minutes": 139.0}
        for seed in range(3)
        for number in range(3)
        for name in strategies
    ]
    return pd.DataFrame(rows)


def test_a_share_of_wins_is_of_the_comparisons_that_were_made() -> None:
    both = pd.concat([points("one", ("auto", "random", "strided")), points("two", ("auto", "random"))])
    matrix = penalty_matrix(comparisons(both))
    assert matrix.loc["auto", "random"] == matrix.loc["auto", "strided"] == 1


def test_a_strategy_of_few_seeds_takes_none_from_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = points("toy", STRATEGIES)
    few = table[(table.strategy != "predictive_entropy") | (table.seed < 1)]
    compared = comparisons(few)
    full = comparisons(table[table.strategy != "predictive_entropy"])
    both = compared.merge(full, on=["system", "round", "a", "b"])
    assert len(both) == len(full) and np.allclose(both.p_x, both.p_y) and (both.p_x < 1).any()
    monkeypatch.setattr(command, "console", Console(file=io.StringIO()))
    monkeypatch.setattr("msklabel.choose.simulate.statistics.read_points", lambda _: few)
    command.report(tmp_path, 1)
    assert set(pd.read_csv(tmp_path / "strategies.csv").seeds) == {1}


def test_names_of_strategies_are_not_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(command, "console", Console(file=screen, width=80))
    monkeypatch.setattr(
        "msklabel.choose.simulate.statistics.read_points", lambda _: points("hip_abductor_mr", STRATEGIES)
    )
    command.report(tmp_path, 3)
    shown = screen.getvalue()
    assert "…" not in shown and max(map(len, shown.splitlines())) <= 80
    for whole in (*STRATEGIES, "hip_abductor_mr", "minutes", "139"):
        assert whole in shown


def test_results_go_into_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be a folder for results"):
        command.simulate(tmp_path / "file")
