"""Figures that a radiologist can read: sides are named, nothing is cut off, what says nothing looks like nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from msklabel.measure.report.figures import bland_altman_plots, heat_map, map_figure, overlays
from msklabel.measure.report.page import table_html, with_intervals
from msklabel.measure.report.pdf import _blocks
from msklabel.measure.summary import volume_agreement
from msklabel.system import load_system

DIXON = load_system(Path(__file__).parents[2] / "configs" / "thigh_dixon.yaml")


def test_an_overlay_names_the_sides_shows_the_labels_and_keeps_its_legend_inside() -> None:
    labels = np.zeros((200, 160), np.uint8)
    for index in range(1, 19):
        labels[60 + 4 * index, 70:100] = index
    figure = overlays(np.random.default_rng(0).random((200, 160)), {"labels": labels}, DIXON, "scan 1")
    FigureCanvasAgg(figure).draw()
    [legend] = figure.legends
    box, whole = legend.get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0
    assert len(legend.get_texts()) == 18
    for axes in figure.axes:
        left, right = (text.get_window_extent().x0 for text in axes.texts)
        assert [text.get_text() for text in axes.texts] == ["R", "L"] and left < right
        assert axes.xaxis_inverted()  # the first column of the array, the patient's left, is drawn on the right
        assert axes.images[0].get_array().shape[:2] == (38, 87)  # what is labelled, with a margin


def test_a_map_is_grey_where_it_says_nothing() -> None:
    values = np.full((40, 40), np.nan)
    values[10:30, 10:30] = 100
    figure = map_figure(values, "fat fraction", "%", (0, 100), "inferno")
    colours = figure.axes[0].images[0].cmap
    assert tuple(colours.get_bad())[:3] == pytest.approx((0.6, 0.6, 0.6))
    assert np.abs(np.array(colours(1.0))[:3] - 0.6).max() > 0.2


def test_a_structure_that_is_in_neither_is_no_agreement() -> None:
    truth, predicted = [10.0, 20, 30, 0, 0, 0], [12.0, 19, 33, 0, 0, 0]
    rows = pd.DataFrame({"truth_cm3": truth, "predicted_cm3": predicted, "structure": "psoas", "kind": "label"})
    rows = rows.assign(side="both", state=["both"] * 3 + ["absent"] * 3)
    found = volume_agreement(rows).iloc[0]
    assert found["cases"] == 3
    assert found["volume_r"] == pytest.approx(np.corrcoef(truth[:3], predicted[:3])[0, 1])
    gone = volume_agreement(rows[rows["state"] == "absent"]).iloc[0]
    assert gone["cases"] == 0 and np.isnan(gone["volume_r"]) and gone["note"]


def test_each_structure_has_its_own_limits_of_agreement() -> None:
    first = [10.0, 20, 30, 40]
    pairs = {"large": (first, [11.0, 21, 31, 41]), "small": ([1.0, 2, 3], [1.0, 2.5, 2]), "lone": ([5.0], [6.0])}
    figure = bland_altman_plots(pairs, "cm³", "second − first")
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert list(panels) == ["large", "small", "lone"]
    heights = {name: [float(line.get_ydata()[0]) for line in axes.lines[1:]] for name, axes in panels.items()}
    assert heights["large"] == pytest.approx([1, 1, 1])
    bias, sd = -0.5 / 3, np.std([0, 0.5, -1], ddof=1)
    assert heights["small"] == pytest.approx([bias, bias - 1.96 * sd, bias + 1.96 * sd])
    assert heights["lone"] == [] and panels["lone"].lines[0].get_ydata().tolist() == [1]


def test_numbers_of_limits_stand_beside_the_points_and_each_other() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(2000, 300, 30)
    same = [1.0, 2, 3]  # bias and limits are one line
    pairs = {"wide": (first, first - rng.normal(1500, 400, 30)), "same": (same, [2.0, 3, 4])}
    figure = bland_altman_plots(pairs, "cm³", "unet: predicted − true volume", "predicted − true")
    FigureCanvasAgg(figure).draw()
    assert figure.get_supylabel() == "predicted − true (cm³)"
    long = bland_altman_plots(pairs, "cm³", "second (networks/quantities.csv) − first (annotators/quantities.csv)")
    FigureCanvasAgg(long).draw()
    assert long.get_supylabel() == "second − first (cm³)"
    assert long.bbox.x0 <= long._suptitle.get_window_extent().x0 and "\n" in long.get_suptitle()
    for axes in figure.axes:
        inside, boxes = axes.get_window_extent(), [text.get_window_extent() for text in axes.texts]
        assert len(boxes) == 3 and all(inside.x1 < box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
        bias, lower, upper = ((box.y0 + box.y1) / 2 for box in boxes)
        assert upper - bias > 4 and bias - lower > 4
    assert [text.get_text() for text in figure.axes[1].texts] == ["1", "1", "1"]
    assert "e" not in figure.axes[0].texts[1].get_text()  # below -1000, in figures


@pytest.mark.parametrize(
    ("numbers", "cells"),
    [
        ([3.18642, 431.94, np.nan, 0.0], ["3.2", "431.9", "–", "0"]),
        ([3.18642, 43.194], ["3.19", "43.19"]),
        ([0.5, 0.04961, 1.23e-7], ["0.500", "0.050", "1.2e-07"]),
        ([1, 20000], ["1", "20000"]),
    ],
)
def test_a_columns_numbers_have_as_many_places(numbers: list[float], cells: list[str]) -> None:
    table = table_html(pd.DataFrame({"volume_cm3": numbers}))
    assert "<th>volume (cm³)</th>" in table
    assert [part.split("<")[0] for part in table.split('<td class="n">')[1:]] == cells


def test_numbers_with_their_intervals() -> None:
    found = with_intervals([1.25, np.nan, 3.0], [0.5, np.nan, np.nan], [12.0, np.nan, np.nan])
    assert found == ["1.25 [0.50,\u00a012.00]", "–", "3.00"]


def test_long_names_may_be_broken_and_nothing_else_is_changed() -> None:
    name = "haematopoietic_bone_marrow:mean_hu"
    table = table_html(pd.DataFrame({"exposure": [name, "<b>", "muscle:volume"]}))
    assert "haematopoietic_<wbr>bone_<wbr>marrow:<wbr>mean_<wbr>hu</td>" in table
    assert ">&lt;b&gt;</td>" in table and ">muscle:volume</td>" in table
    assert name in table.replace("<wbr>", "")


def test_a_long_note_is_wrapped_on_a_page_of_a_pdf() -> None:
    note = "19 cases of the rarer outcome, at least 20 needed; volumes of 5 slices in 35 scans, 3 slices in 5 scans"
    frame = pd.DataFrame(
        {"exposure": ["a", "b"], "side": "both", "cases": [40, 7], "note": [note, ""], "p": [0.5, 0.25]}
    )
    [lines] = list(_blocks(frame))
    assert len(lines) == 5 and set(lines[1]) == {"-"}
    assert " ".join(" ".join(lines[2:4]).split()) == f"a both 40 {note[:58]} 0.500 {note[59:]}"
    assert lines[4].split() == ["b", "both", "7", "0.250"] and lines[4].endswith("0.250")
    assert lines[2].index("0.500") == lines[4].index("0.250")


def test_names_beside_a_heat_map_are_whole() -> None:
    name = "intermuscular_adipose_tissue:mean_hu_per_height2_hu_per_m2"
    figure = heat_map(pd.DataFrame({"all": [0.5]}, index=[name]), "low muscle mass")
    FigureCanvasAgg(figure).draw()
    [label] = figure.axes[0].get_yticklabels()
    assert label.get_window_extent().x0 >= 0 and figure.axes[0].get_window_extent().width > 80
