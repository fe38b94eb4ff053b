"""One table over the demos of several systems."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from msklabel.cli import app
from msklabel.demo.summary import markdown, read_outcomes
from msklabel.errors import NotFound


def outcome(system: str, dices: list[float]) -> dict:
    rounds = [
        {"labels": 2 * n, "dice": dice, "label_dice": {"femur": dice, "muscle": dice - 0.1}, "training_seconds": 10.4}
        for n, dice in enumerate(dices)
    ]
    return {"system": system, "seed": 3, "rounds": rounds, "seconds": 99.6, "cpu_seconds": 150.2}


def left_behind(folder: Path, *outcomes: dict) -> Path:
    for one in outcomes:
        (folder / one["system"]).mkdir(parents=True)
        (folder / one["system"] / "demo.json").write_text(json.dumps(one))
    return folder


def test_a_row_has_every_round_the_weakest_label_and_the_times(tmp_path: Path) -> None:
    left_behind(tmp_path, outcome("thigh_ct", [0.012, 0.5, 0.804]), outcome("hip_ct", [0.0, 0.9]))
    lines = markdown(read_outcomes(tmp_path)).splitlines()
    assert [line.split(" | ")[0] for line in lines] == ["| system", "| ---", "| hip_ct", "| thigh_ct"]
    assert lines[3] == "| thigh_ct | 3 | 0 → 2 → 4 | 0.01 → 0.50 → 0.80 | muscle 0.70 | 31 | 100 | 150 |"


def test_the_command_prints_it_without_running_anything(tmp_path: Path) -> None:
    left_behind(tmp_path, outcome("hip_ct", [0.0, 0.9]))
    result = CliRunner().invoke(app, ["demo", "--summary", "--out", str(tmp_path)])
    assert result.exit_code == 0
    assert result.output.splitlines() == markdown(read_outcomes(tmp_path)).splitlines()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["demo.json"]


def test_a_folder_without_demos_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no demo has been run there; msklabel demo SYSTEM runs one"):
        read_outcomes(tmp_path)
