"""Distance maps by hand, and agreement of two tables through the command."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from matplotlib.backends.backend_agg import FigureCanvasAgg
from typer.testing import CliRunner

from msklabel.cli import app
from msklabel.errors import UserError
from msklabel.imaging.scan import LabelMap
from msklabel.imaging.write import write_labels
from msklabel.measure import agreement_folder
from msklabel.measure.agreement import bland_altman
from msklabel.measure.distance_map import distance_figure, distance_map, vtk_text
from msklabel.measure.report.figures import scatter
from msklabel.measure.surface import surface_distances, surfaces

AFFINE = np.array([[2.0, 0, 0, -30], [0, 1.0, 0, 5], [0, 0, 3.0, 7], [0, 0, 0, 1]])


def boxes() -> tuple[np.ndarray, np.ndarray]:
    """A box, and one that reaches two voxels (4 mm) farther to the right and one less far up."""
    first, second = np.zeros((2, 16, 12, 10), bool)
    first[3:9, 1:11, 1:8] = True
    second[3:11, 1:11, 1:7] = True
    return first, second


def test_a_distance_map_by_hand():
    first, second = boxes()
    found = distance_map(first, second, AFFINE)
    assert found.array[8, 6, 3] == pytest.approx(-4)  # the right face lies two voxels inside the other
    assert found.array[5, 6, 7] == pytest.approx(3)  # the upper face one voxel outside
    assert found.array[3, 6, 3] == 0
    assert np.isnan(found.array[5, 6, 4])
    assert np.isfinite(found.array).sum() == len(surfaces(first.astype(np.uint8))[1])


def test_its_largest_value_is_the_directed_hausdorff_distance():
    first, second = boxes()
    edges = [surfaces(mask.astype(np.uint8))[1] for mask in (first, second)]
    expected = surface_distances(*edges, (2.0, 1.0, 3.0)).truth_mm
    found = np.abs(distance_map(first, second, AFFINE).array)
    np.testing.assert_allclose(np.sort(found[np.isfinite(found)]), np.sort(expected), rtol=1e-6)


def test_the_triangles_lie_on_the_structure_in_mm():
    found = distance_map(*boxes(), AFFINE)
    low, high = found.points.min(axis=0), found.points.max(axis=0)
    np.testing.assert_allclose(low, [-30 + 2.5 * 2, 5 + 0.5, 7 + 0.5 * 3])
    np.testing.assert_allclose(high, [-30 + 8.5 * 2, 5 + 10.5, 7 + 7.5 * 3])
    rightmost = found.points[:, 0] == high[0]
    assert found.at_points_mm[rightmost].min() == pytest.approx(-4)
    lines = vtk_text(found, "a\nb").splitlines()
    assert lines[1] == "a b"
    assert lines[4] == f"POINTS {len(found.points)} float"
    assert len(lines) == 5 + 1 + 3 + 2 * len(found.points) + len(found.faces)


def test_a_structure_that_is_in_one_only():
    first, second = boxes()
    with pytest.raises(UserError, match="needs the structure in both"):
        distance_map(first, np.zeros_like(second), AFFINE)


def test_the_picture_names_its_axes_and_shows_what_is_nearest():
    flat = np.zeros((60, 40, 12), bool)
    flat[5:55, 5:35, 5:7] = True
    other = flat.copy()
    other[5:55, 32:35] = False  # behind it in front views: y grows to the front
    found = distance_map(flat, other, np.diag([2.0, 1, 3, 1]))
    figure = distance_figure(found, "title")
    FigureCanvasAgg(figure).draw()
    front, right, _ = figure.axes
    assert front.get_xlabel() == "x (mm), to the patient's right" and front.get_ylabel() == "z (mm), to the head"
    assert right.get_xlabel() == "y (mm), to the front"
    assert front.xaxis_inverted() and not right.xaxis_inverted()
    assert front.collections[0].get_array()[-1] == pytest.approx(3)  # the front edge lies 3 mm off
    assert front.collections[0].get_array()[0] == pytest.approx(0)
    for axes in (front, right):
        shown = [text for text in axes.get_yticklabels() if text.get_text()]
        boxes = sorted((text.get_window_extent() for text in shown), key=lambda box: box.y0)
        assert all(below.y1 <= above.y0 for below, above in itertools.pairwise(boxes))


def test_the_command_writes_map_surface_and_picture(tmp_path):
    for name, mask in zip(("a", "b"), boxes(), strict=True):
        write_labels(tmp_path / f"{name}.nii.gz", LabelMap(mask.astype(np.uint8) * 2, AFFINE))
    files = ["--truth", tmp_path / "a.nii.gz", "--pred", tmp_path / "b.nii.gz", "--system", "hip_abductor_mr"]
    run = lambda name: CliRunner().invoke(  # noqa: E731
        app, ["distance-map", *map(str, files), "--structure", name, "--out", str(tmp_path / "out")]
    )
    result = run("gluteus_minimus")
    assert result.exit_code == 0, result.output
    image = sitk.ReadImage(str(tmp_path / "out" / "gluteus_minimus_distance_mm.nrrd"))
    np.testing.assert_allclose(image.GetSpacing(), (2, 1, 3))
    assert sitk.GetArrayFromImage(image)[3, 6, 8] == -4
    assert {file.suffix for file in (tmp_path / "out").iterdir()} == {".nrrd", ".vtk", ".png"}
    title = (tmp_path / "out" / "gluteus_minimus_distance_mm.vtk").read_text().splitlines()[1]
    names = f"the truth {tmp_path.name}/a.nii.gz from the prediction {tmp_path.name}/b.nii.gz"
    assert title == f"gluteus_minimus: distance of {names}, mm, negative inside"
    assert "has no structure 'psoas'; structures: gluteus_medius" in str(run("psoas").exception)


class TestTables:
    def write(self, folder, name: str, values: list[float]) -> str:
        rows = {"scan": [f"s{i}" for i in range(len(values))], "structure": "m", "kind": "label", "side": "both"}
        pd.DataFrame(rows).assign(volume_cm3=values).to_csv(folder / name, index=False)
        return str(folder / name)

    def run(self, folder, *arguments: str):
        return CliRunner().invoke(app, ["agreement", *arguments, "--out", str(folder / "out")])

    def test_two_tables(self, tmp_path):
        first, second = [10.0, 20, 30, 40, 50], [11.0, 21, 33, 41, 49]
        files = ("--first", self.write(tmp_path, "a.csv", first), "--second", self.write(tmp_path, "b.csv", second))
        result = self.run(tmp_path, *files, "--quantity", "volume_cm3")
        assert result.exit_code == 0, result.output
        row = pd.read_csv(tmp_path / "out" / "agreement.csv").iloc[0]
        expected = bland_altman(first, second)
        assert row["bias"] == pytest.approx(1.0)
        assert (row["upper_limit"], row["upper_limit_lower"]) == pytest.approx(
            (expected.upper.value, expected.upper.lower)
        )
        assert row["icc"] > 0.99
        assert (tmp_path / "out" / "report.html").read_text().count("<img") == 2

    def test_tables_that_do_not_go_together(self, tmp_path):
        a = self.write(tmp_path, "a.csv", [1.0, 2.0])
        b = self.write(tmp_path, "b.csv", [1.0, 2.0])
        wrong = self.run(tmp_path, "--first", a, "--second", b, "--quantity", "area_cm2")
        assert "a.csv: the column area_cm2 is missing" in str(wrong.exception)
        few = self.run(tmp_path, "--first", a, "--second", b, "--quantity", "volume_cm3")
        assert few.exit_code == 0
        assert "2 cases, at least 3 needed" in (tmp_path / "out" / "report.html").read_text()

    def test_volumes_of_other_numbers_of_slices_are_said(self, tmp_path):
        files = []
        for name, spans in (("a", ["3 to 7"] * 4), ("b", ["3 to 7", "4 to 8", "3 to 5", None])):
            file = self.write(tmp_path, f"{name}.csv", [1.0, 2.0, 4.0, 7.0])
            pd.read_csv(file).assign(volume_slices=spans, area_cm2=1.0).to_csv(file, index=False)
            files += [f"--{'first' if name == 'a' else 'second'}", file]
        result = self.run(tmp_path, *files, "--quantity", "volume_cm3")
        words = "in 2 of 4 scans over other slabs (first and second: 5 slices and not known, 5 slices and 3 slices)"
        assert f"warning: Volumes are not of slabs of one height in both tables: {words}." in " ".join(
            result.output.split()
        )
        assert pd.read_csv(tmp_path / "out" / "agreement.csv")["note"].tolist() == [words]
        assert (tmp_path / "out" / "report.html").read_text().count(words) == 2
        same = self.run(tmp_path, files[0], files[1], "--second", files[1], "--quantity", "volume_cm3")
        assert "warning" not in same.output
        assert "warning" not in self.run(tmp_path, *files, "--quantity", "area_cm2").output

    def test_slabs_are_compared_by_their_height_and_not_by_their_slices(self, tmp_path):
        files = []
        for name, spans, heights in (
            ("a", "3 to 7", [15.0, 15.0, 15.0, 15.0]),
            ("b", "9 to 13", [15.0, 5.0, 14.9999, 5.0]),  # five slices of 3 mm and of 1 mm
        ):
            file = self.write(tmp_path, f"{name}.csv", [1.0, 2.0, 4.0, 7.0])
            pd.read_csv(file).assign(volume_slices=spans, slab_mm=heights).to_csv(file, index=False)
            files += [f"--{'first' if name == 'a' else 'second'}", file]
        result = self.run(tmp_path, *files, "--quantity", "volume_cm3")
        words = "in 2 of 4 scans over other slabs (first and second: 15 mm and 5 mm)"
        assert words in " ".join(result.output.split())
        finer = pd.read_csv(files[1]).assign(volume_slices="0 to 14")  # fifteen of 1 mm are as high as five of 3 mm
        finer.to_csv(files[3], index=False)
        assert "warning" not in self.run(tmp_path, *files, "--quantity", "volume_cm3").output

    def test_a_scan_that_is_there_twice_is_refused(self, tmp_path):
        a, b = (self.write(tmp_path, f"{name}.csv", [1.0, 2.0, 4.0, 7.0]) for name in "ab")
        pd.concat([pd.read_csv(b)] * 2).to_csv(b, index=False)
        result = self.run(tmp_path, "--first", a, "--second", b, "--quantity", "volume_cm3")
        assert "b.csv: m (both) of s0 is there twice; give each scan once" in str(result.exception)

    def test_groups_are_not_pooled_with_what_they_are_made_of(self, tmp_path, monkeypatch):
        drawn = []

        def keep(first, second, *rest):
            drawn.append((first, second))
            return scatter(first, second, *rest)

        monkeypatch.setattr(agreement_folder, "scatter", keep)
        cortical, trabecular = np.array([1.0, 2, 4]), np.array([10.0, 12, 15])
        parts = {"cortical_bone": cortical, "trabecular_bone": trabecular, "bone": cortical + trabecular}
        files = []
        for name, more in (("a", 0.0), ("b", 0.5)):
            rows = [
                {"scan": f"s{i}", "structure": part, "kind": "group" if part == "bone" else "label", "side": "both"}
                | {"volume_cm3": value + more}
                for part, values in parts.items()
                for i, value in enumerate(values)
            ]
            pd.DataFrame(rows).to_csv(tmp_path / f"{name}.csv", index=False)
            files.append(tmp_path / f"{name}.csv")
        found = agreement_folder.agreement_of_tables(*files, "volume_cm3")
        assert drawn == [([1, 2, 4, 10, 12, 15], [1.5, 2.5, 4.5, 10.5, 12.5, 15.5])]
        assert found.table["structure"].tolist() == list(parts) and found.table["cases"].tolist() == [3] * 3
        captions = [picture.caption for section in found.report.sections for picture in section.pictures]
        assert captions[1].endswith("see the table for those of each")
        for file in files:
            table = pd.read_csv(file)
            table[table["kind"] == "group"].to_csv(file, index=False)
        agreement_folder.agreement_of_tables(*files, "volume_cm3")
        assert drawn[1][0] == [11, 14, 19]  # nothing but groups
