"""Curves of a simulation: budgets are whole numbers of slices, and each is marked."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from msklabel.choose.simulate import figures


@pytest.mark.parametrize("budgets", [[4], [1, 2, 3], [8, 16, 24]])
def test_every_budget_is_marked_over_whole_numbers_of_slices(
    budgets: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"system": "hip", "strategy": strategy, "seed": 0, "round": place, "slices": slices, "dice": 0.5 + 0.1 * place}
        for strategy in ("auto", "random")
        for place, slices in enumerate(budgets)
    ]
    drawn = []
    monkeypatch.setattr(figures.plt, "close", drawn.append)
    figures.draw_curves(pd.DataFrame(rows), tmp_path / "curves.png")
    monkeypatch.undo()
    [axes] = drawn[0].axes
    figures.plt.close(drawn[0])
    assert {line.get_marker() for line in axes.lines} == {"o"}
    assert axes.lines[0].get_xdata().tolist() == budgets
    assert all(float(tick).is_integer() for tick in axes.get_xticks())
    low, high = axes.get_xlim()
    assert any(low <= tick <= high for tick in axes.get_xticks())
    assert (tmp_path / "curves.png").stat().st_size > 0
