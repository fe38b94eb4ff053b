"""Folds and ensembles."""

from pathlib import Path

import pytest
import torch
from test_learn import make_case
from test_preprocess import make_system

from msklabel.errors import UserError
from msklabel.learn.cases import Case, PreparedCase, prepare_case
from msklabel.learn.evaluate import mean_dice
from msklabel.learn.fit import Recipe, fit
from msklabel.learn.selection import Selection
from msklabel.learn.split import fold_of
from msklabel.learn.trainer import Stopped
from msklabel.learn.versions import Versions
from msklabel.networks import loaded_network
from msklabel.predict.engine import Engine
from msklabel.system import System

CASES = [make_case(seed) for seed in range(4)]
ALL = Selection(CASES, [], [])


def test_each_scan_is_held_out_once_and_every_fold_is_a_member(tmp_path: Path) -> None:
    system = make_system()
    fitted = fit(system, ALL, tmp_path, Recipe(epochs=1, folds=2))
    assert len(fitted.members) == 2
    assert set(fitted.fold_dice) == {case.id for case in CASES}
    for fold, dice in enumerate(fitted.member_dice):
        held_out = {case.id: fitted.fold_dice[case.id] for case in CASES if fold_of(case.patient, 2) == fold}
        assert dice == pytest.approx(mean_dice(held_out))
    assert len(fitted.member_dice) == 2
    assert any(not torch.equal(a, b) for a, b in zip(*(m.values() for m in fitted.members), strict=True))


def test_folds_that_are_done_are_not_done_again(tmp_path: Path) -> None:
    system, recipe = make_system(), Recipe(epochs=1, folds=2)
    reported: list[int] = []
    with pytest.raises(Stopped):
        fit(system, ALL, tmp_path, recipe, None, lambda n, _: reported.append(n), lambda: reported == [0])
    resumed: list[int] = []
    again = fit(system, ALL, tmp_path, recipe, report=lambda n, _: resumed.append(n))
    assert (reported, resumed) == ([0], [1])
    whole = fit(system, ALL, tmp_path / "whole", recipe)
    once_more = fit(system, ALL, tmp_path, recipe)
    assert again.crops == once_more.crops == whole.crops
    assert once_more.seconds == pytest.approx(again.seconds, abs=0.01)
    for one, other in zip(again.members, whole.members, strict=True):
        assert all(torch.allclose(one[name].float(), other[name].float(), atol=1e-5) for name in one)


def test_a_training_stops_and_lets_others_go_first_while_it_prepares_its_scans(tmp_path: Path) -> None:
    prepared: list[str] = []
    paused: list[int] = []

    def prepare(system: System, case: Case) -> PreparedCase:
        prepared.append(case.id)
        return prepare_case(system, case)

    stop, pause = (lambda: len(prepared) == 2), (lambda: paused.append(len(prepared)))
    with pytest.raises(Stopped):
        fit(make_system(), ALL, tmp_path, Recipe(epochs=1), should_stop=stop, prepare=prepare, pause=pause)
    assert (prepared, paused) == (["scan0", "scan1"], [0, 1, 2])


def test_a_member_that_was_not_written_whole_is_trained_again_from_its_checkpoint(tmp_path: Path) -> None:
    system, recipe = make_system(), Recipe(epochs=1, folds=2)
    first = fit(system, ALL, tmp_path, recipe)
    done = tmp_path / "fold0" / "done.safetensors"
    done.write_bytes(done.read_bytes()[:100])
    again = fit(system, ALL, tmp_path, recipe)
    for one, other in zip(first.members, again.members, strict=True):
        assert all(torch.allclose(one[name].float(), other[name].float(), atol=1e-5) for name in one)
    assert not list(tmp_path.glob("fold0/.done*"))


def test_patients_never_straddle_folds_and_too_few_are_said(tmp_path: Path) -> None:
    assert {fold_of(f"p{i}", 5) for i in range(100)} == set(range(5))
    with pytest.raises(UserError, match="1 patients are too few for 2 folds"):
        fit(make_system(), Selection(CASES[:1], [], []), tmp_path, Recipe(epochs=1, folds=2))


def test_an_ensemble_is_stored_and_read_back_as_a_version(tmp_path: Path) -> None:
    system = make_system(spacing_mm=[None, None, None])
    fitted = fit(system, ALL, tmp_path / "run", Recipe(epochs=1, folds=2))
    versions = Versions(tmp_path)
    versions.add(system, fitted.members, {})
    members = [loaded_network(system, weights) for weights in versions.weights(system, "0001")]
    scan, _ = CASES[0].load()
    direct = Engine(system, [loaded_network(system, weights) for weights in fitted.members])(scan)
    assert (Engine(system, members)(scan).labels.array == direct.labels.array).all()
