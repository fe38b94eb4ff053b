"""The simulation: plumbing, determinism and statistics; it claims nothing about strategies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_preprocess import body_in_air, make_system

from msklabel.choose.simulate.judge import Judge
from msklabel.choose.simulate.queries import QUERIES, State, first_slices
from msklabel.choose.simulate.run import FULL, Cell, Setting, cost, load_cases, play, run_cells, save_cases
from msklabel.choose.simulate.scans import Case, LabelledScan, prepare, split
from msklabel.choose.simulate.statistics import (
    area_under,
    comparisons,
    penalty_matrix,
    read_points,
    record_of,
    summary_table,
)
from msklabel.choose.simulate.train import sparse_loss, train
from msklabel.errors import UserError
from msklabel.imaging import Scan
from msklabel.learn.annotation import UNKNOWN
from msklabel_phantoms.phantom import Phantom
from msklabel_phantoms.pool import PoolOptions, generate_pool, without_label

TOY = make_system(spacing_mm=[None] * 3, choose={"flip_axes": [0]})
SETTING = Setting(rounds=1, scans=2, per_scan=2, steps=4, test_share=0.3)


def case(number: int, patient: int | None = None) -> Case:
    rng = np.random.default_rng(number)
    hu, labels = body_in_air((24, 22, 6))
    scan = Scan((hu + rng.normal(0, 20, hu.shape)).astype(np.float32)[None], np.eye(4))
    owner = f"p{number if patient is None else patient}"
    return prepare(TOY, LabelledScan(f"s{number}", owner, "ab"[number % 2], scan, labels))


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [case(number) for number in range(6)]


@pytest.fixture(scope="module")
def state(cases: list[Case]) -> State:
    drawn = first_slices(cases, 2, 2, 0)
    judge = Judge(TOY, train(TOY, cases, drawn, 4, 0))
    return State(TOY, cases, [judge(one) for one in cases], drawn, 1, 3, 4, 2)


@pytest.mark.parametrize("name", QUERIES)
def test_every_strategy_asks_for_as_many_new_slices(name: str, state: State) -> None:
    query = QUERIES[name](state, np.random.default_rng(0))
    assert len(query) == len(set(query)) == 4
    assert set(query) <= set(state.free)
    assert query == QUERIES[name](state, np.random.default_rng(0))


@pytest.mark.parametrize("name", QUERIES)
def test_a_pool_that_is_used_up_gives_what_is_left(name: str, state: State) -> None:
    drawn = {s: set(range(one.slices)) for s, one in enumerate(state.cases)}
    drawn[3] -= {1, 4}
    query = QUERIES[name](replace(state, drawn=drawn), np.random.default_rng(0))
    assert set(query) <= {(3, 1), (3, 4)}
    assert name == "stochastic_batches" or len(query) == 2


def test_auto_asks_for_slices_of_new_scans(state: State) -> None:
    query = QUERIES["auto"](state, np.random.default_rng(0))
    assert not {scan for scan, _ in query} & set(state.drawn)


def test_oracle_and_predicted_foreground_look_at_different_labels(state: State, cases: list[Case]) -> None:
    truth = QUERIES["oracle_foreground"](state, np.random.default_rng(1))
    assert all((cases[s].labels[:, :, z] > 0).any() for s, z in truth)


def test_the_loss_ignores_what_is_not_known() -> None:
    scores = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    target = torch.full((1, 4, 4), UNKNOWN)
    target[0, 0] = torch.tensor([0, 1, 2, 1])
    changed = scores.clone()
    changed[..., 1:, :] = 7
    assert torch.equal(sparse_loss(scores, target), sparse_loss(changed, target))
    assert not torch.equal(sparse_loss(scores, target), sparse_loss(-scores, target))


def test_training_is_deterministic_and_learns(cases: list[Case]) -> None:
    drawn = {0: {2, 3}, 1: {2}}
    first, again = (train(TOY, cases, drawn, 30, 1) for _ in range(2))
    assert all(torch.equal(first[-1][name], again[-1][name]) for name in first[-1])
    assert len(first) == 3
    before, after = (Judge(TOY, train(TOY, cases, drawn, steps, 1)).dice(cases[3:]) for steps in (1, 60))
    assert np.mean(list(after.values())) > np.mean(list(before.values()))


def test_no_patient_is_queried_and_tested() -> None:
    parts = split([case(number, number // 2) for number in range(8)], 0.3, 0)
    assert not {one.patient for one in parts.pool} & {one.patient for one in parts.test}
    assert len(parts.pool) + len(parts.test) == 8
    with pytest.raises(UserError, match="4 patients"):
        split([case(0)], 0.3, 0)


def test_all_strategies_of_a_seed_start_alike(cases: list[Case]) -> None:
    parts = split(cases, 0.3, 0)
    starts = [play(TOY, parts, name, 0, SETTING)[0] for name in ("random", "auto")]
    assert starts[0] == starts[1]


def test_cost_by_hand(cases: list[Case]) -> None:
    spent = cost(cases, {0: {0, 2}, 1: {3}})
    voxels = sum(int((cases[s].labels[:, :, z] > 0).sum()) for s, z in ((0, 0), (0, 2), (1, 3)))
    assert (spent["scans"], spent["slices"], spent["voxels"]) == (2, 3, voxels)
    assert spent["share"] == 3 / sum(one.slices for one in cases)
    assert spent["minutes"] == pytest.approx(1.5 + 0.02 * voxels / 100, abs=0.01)


def test_cells_are_played_once_and_the_same_anywhere(tmp_path: Path, cases: list[Case]) -> None:
    save_cases(tmp_path / "cases.pt", cases)
    assert len(load_cases(tmp_path / "cases.pt")) == 6
    cells = [Cell("toy", name, 0) for name in ("random", "strided", FULL)]
    arguments = ({"toy": TOY}, {"toy": tmp_path / "cases.pt"}, SETTING, tmp_path / "cells", 1)
    assert {cell for cell, _ in run_cells(cells, *arguments)} == set(cells)
    assert list(run_cells(cells, *arguments)) == []
    with pytest.raises(UserError, match="other options"):
        list(run_cells(cells, *arguments[:2], replace(SETTING, steps=5), *arguments[3:]))
    for cell in cells[:2]:  # the second took over the start of the first
        kept = json.loads((tmp_path / "cells" / cell.file).read_text())
        again = play(TOY, split(cases, SETTING.test_share, 0), cell.strategy, 0, SETTING)
        assert kept["points"] == json.loads(json.dumps(again))
    table = summary_table(read_points(tmp_path / "cells"))
    assert sorted(table.strategy) == ["random", "strided"]
    assert table.of_full[0] > 0


def test_area_by_hand() -> None:
    assert area_under([0.5, 0.5, 0.5]) == 0.5
    assert area_under([0.0, 1.0, 1.0]) == 0.75


def points(better: float, seeds: int = 8) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(seeds):
        level = rng.normal(0.7, 0.05)
        for number in range(3):
            for strategy, extra in (("auto", better), ("random", 0.0), ("strided", 0.0)):
                dice = level + 0.05 * number + extra + rng.normal(0, 0.004)
                rows.append({"system": "toy", "strategy": strategy, "seed": seed, "round": number, "dice": dice})
    return pd.DataFrame(rows)


def test_who_is_better_is_found_and_nobody_else() -> None:
    compared = comparisons(points(0.03))
    assert len(compared) == 2 * 3
    assert (compared.holm >= compared.p).all()
    matrix = penalty_matrix(compared)
    assert matrix.loc["auto"].tolist() == [0, 1, 1]
    assert matrix.loc["random"].sum() == matrix.loc["strided"].sum() == 0
    assert penalty_matrix(comparisons(points(0.0))).to_numpy().sum() == 0


def test_the_record_of_one_strategy_is_seen_from_its_side() -> None:
    compared = pd.DataFrame(
        [
            ("s", 1, "auto", "random", 0.10, "auto"),
            ("s", 2, "auto", "random", 0.02, ""),
            ("s", 1, "also", "auto", 0.04, "also"),
            ("s", 1, "also", "random", 0.20, "also"),
            ("t", 1, "auto", "random", -0.01, ""),
        ],
        columns=["system", "round", "a", "b", "difference", "wins"],
    )
    rows = {(row.system, row.rival): row for row in record_of(compared, "auto").itertuples()}
    assert rows.keys() == {("s", "random"), ("s", "also"), ("t", "random")}
    random, also = rows["s", "random"], rows["s", "also"]
    assert (random.won, random.lost, random.of, random.difference) == (1, 0, 2, pytest.approx(0.06))
    assert (also.won, also.lost, also.of, also.difference) == (0, 1, 1, pytest.approx(-0.04))
    assert record_of(comparisons(points(0.0)), "nobody").empty


def test_the_pool_has_what_real_pools_have() -> None:
    options = PoolOptions(second_site=0.5, pathology=0.5, duplicates=0.5, rare_label=3, rare_share=0.3)
    pool = list(generate_pool("hip_tissue_ct", 8, 1, options, (40, 30, 3), (10, 10, 5)))
    facts = pd.DataFrame([phantom.facts for phantom in pool])
    assert set(facts.site) == {"a", "b"}
    assert facts.duplicate.any()
    assert facts.pathology.any()
    assert (facts.duplicate.sum() + facts.patient.nunique()) == len(pool)
    with_rare = [bool((phantom.labels == 3).any()) for phantom in pool]
    assert with_rare == facts.has_rare_label.tolist()
    again = list(generate_pool("hip_tissue_ct", 8, 1, options, (40, 30, 3), (10, 10, 5)))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(pool, again, strict=True))
    contrast = {site: np.std([p.image.std() for p in pool if p.facts["site"] == site]) for site in "ab"}
    assert contrast["a"] != contrast["b"]


def test_a_label_that_is_taken_out_looks_like_its_neighbour() -> None:
    labels = np.ones((12, 12, 3), np.uint8)
    labels[4:7, 4:7, 1] = 2
    image = np.where(labels == 2, 300.0, 50.0).astype(np.float32)[None]
    found = without_label(Phantom(image, labels, np.eye(4)), 2)
    assert set(np.unique(found.labels)) == {1}
    np.testing.assert_allclose(found.image, 50)
