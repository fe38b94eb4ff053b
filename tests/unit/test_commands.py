"""Commands on a state folder: what is listed in whatever width, and one sentence where something is not there."""

from __future__ import annotations

import errno
import io
import sqlite3
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from msklabel import cli
from msklabel.catalogue import load_catalogue
from msklabel.cli import infer as infer_module
from msklabel.cli import systems as systems_module
from msklabel.cli import train as train_module
from msklabel.cli import versions as versions_module
from msklabel.cli.infer import infer
from msklabel.errors import NotFound, Unreachable, UserError
from msklabel.imaging import LabelMap
from msklabel.imaging.write import write_labels
from msklabel.learn.split import VALIDATION
from msklabel.learn.versions import Versions
from msklabel.networks import build_network, weights_of
from msklabel.system import ConfigError
from msklabel.work import Work
from msklabel_phantoms.write import save_nifti

SYSTEM = "hip_tissue_ct"
NOWHERE = "postgresql://nobody@127.0.0.1:1/x"


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """A folder with a scan and one trained version of the demo profile."""
    system = load_catalogue(None, [SYSTEM], "demo")[SYSTEM]
    write_labels(tmp_path / "scan.nii.gz", LabelMap(np.ones((40, 40, 4), np.uint8), np.diag([5.0, 5, 5, 1])))
    versions = Versions(tmp_path / ".msklabel" / "models")
    reasons = ["published: mean Dice 0.5 on 12 frozen scans, where the version before had 0.4"]
    facts = {"mean_dice": 0.5, "training_scans": 10, "validation_scans": 12, "time": "2026-11-22T21:47:43+0000"}
    metrics = {**facts, "profile": system.profile, "reasons": reasons}
    versions.add(system, [weights_of(build_network(system))], metrics)
    versions.publish(SYSTEM, "0001")
    return tmp_path


@pytest.mark.parametrize("width", [80, 200])
def test_names_and_times_of_versions_are_never_cut_off(
    studies: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(versions_module, "console", Console(file=screen, width=width))
    versions_module.versions(studies)
    shown = screen.getvalue()
    for whole in (SYSTEM, "0001", "2026-11-22 21:47", "0.500", "10 + 12"):
        assert whole in shown
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width


def test_what_a_variant_serves_is_marked_and_rolled_back_by_its_own_name_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = load_catalogue(None, ["thigh_dixon"], "demo")["thigh_dixon"]
    stored = Versions(tmp_path / ".msklabel" / "models")
    for variant in ("", "high_infiltration", ""):  # the last as it is imported, of no scans
        stored.publish(system.name, stored.add(system, [{}], {"variant": variant}).name, variant)
    screen = io.StringIO()
    monkeypatch.setattr(versions_module, "console", Console(file=screen, width=200))
    versions_module.versions(tmp_path)
    rows = [line.split()[1:6] for line in screen.getvalue().splitlines() if line.startswith(system.name)]
    assert rows == [
        ["0001", "–", "–", "+", "–"],
        ["0002", "high_infiltration", "–", "–", "+"],
        ["0003", "yes", "–", "–", "+"],
    ]
    with pytest.raises(ConfigError, match="no variant 'high'; variants: high_infiltration"):
        versions_module.rollback(system.name, tmp_path, "0001", "high")
    monkeypatch.setattr(versions_module.getpass, "getuser", Mock(side_effect=KeyError("uid not found")))
    versions_module.rollback(system.name, tmp_path, "0001", "high_infiltration")
    assert stored.serving(system.name, "high_infiltration") == "0001"
    assert stored.history(system.name, "high_infiltration")[-1]["who"].startswith("user ")


@pytest.mark.parametrize("width", [80, 200])
def test_no_word_about_a_system_is_cut_off(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(systems_module, "console", Console(file=screen, width=width))
    systems_module.systems()
    shown = screen.getvalue()
    assert all(name in shown for name in load_catalogue())
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width


def test_names_of_labels_that_are_compared_are_not_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"cases": 12, "before": 0.9, "after": 0.9, "worst": -0.01, "p": 0.01}
    names = list(load_catalogue(None, ["thigh_dixon"])["thigh_dixon"].labels)
    cases = {"a_scan_with_quite_a_long_name_0001": {"1": 0.9, "2": 0.9}}
    found = {"labels": dict.fromkeys(names, row), "cases": cases, "left_out": {}}
    monkeypatch.setattr("msklabel.work.Work", Mock(return_value=Mock(compare=Mock(return_value=found))))
    screen = io.StringIO()
    monkeypatch.setattr(versions_module, "console", Console(file=screen, width=80))
    versions_module.compare("thigh_dixon", "1", "2", tmp_path)
    assert all(name in screen.getvalue() for name in [*names, *found["cases"]])


def test_a_scan_that_is_left_out_of_a_comparison_is_named_and_the_command_ends_with_status_1(studies: Path) -> None:
    grid, hu = np.diag([5.0, 5, 5, 1]), np.random.default_rng(0).integers(1, 400, (40, 40, 4)).astype(np.int16)
    label = studies / ".msklabel" / "label.nii.gz"
    write_labels(label, LabelMap((hu > 0).astype(np.uint8), grid))
    for name in ("cut", "whole"):
        save_nifti(hu, grid, studies / f"{name}.nii.gz")
    data = Work("", str(studies), {"models": SYSTEM, "profile": "demo"}).datastore()
    for name in ("cut", "whole"):
        data.save_label(name, str(label), "final", {"model": SYSTEM})
    data.store.assign_roles(SYSTEM, {pair.patient: VALIDATION for pair in data.training_pairs(SYSTEM)})
    (studies / "cut.nii.gz").write_bytes((studies / "cut.nii.gz").read_bytes()[:200])
    command = ["compare", SYSTEM, "0001", "0001", "--studies", str(studies), "--profile", "demo", "--device", "cpu"]
    ended = CliRunner().invoke(cli.app, command)
    assert ended.exit_code == 1, ended.output
    assert "warning: cut: " in ended.output and "1 of 2 validation scans left out" in " ".join(ended.output.split())
    assert "whole" in ended.output


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    nope = tmp_path / "nope"
    for asked in (lambda: versions_module.versions(nope), lambda: versions_module.rollback(SYSTEM, nope)):
        with pytest.raises(NotFound, match="nope: no such folder"):
            asked()
    with pytest.raises(NotFound, match="nope: no such folder"):
        versions_module.versions(tmp_path, state=nope)
    assert list(tmp_path.iterdir()) == []


def test_a_state_folder_that_is_none_is_told_from_one_without_a_model(studies: Path, tmp_path: Path) -> None:
    scan, label = studies / "scan.nii.gz", tmp_path / "label.nii.gz"
    with pytest.raises(NotFound, match=r"--state: .*nope: no such folder; it is <studies>/.msklabel unless"):
        infer(scan, SYSTEM, label, state=studies / "nope")
    with pytest.raises(NotFound, match=r"holds no models: it is no state folder; is .*/\.msklabel meant\?"):
        infer(scan, SYSTEM, label, state=studies)
    with pytest.raises(NotFound, match="holds no models: it is no state folder, or nothing is trained yet"):
        infer(scan, SYSTEM, label, state=studies / ".msklabel" / "models")
    assert not label.exists()


def test_weights_of_another_profile_name_the_remedy(studies: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\(profile demo, .*\(profile paper, .*\); give --profile demo \(a server: "):
        infer(studies / "scan.nii.gz", SYSTEM, tmp_path / "label.nii.gz", state=studies / ".msklabel", device="cpu")


@pytest.mark.parametrize("command", [["infer", "--model", f"{SYSTEM}_threshold"], ["interpolate"]])
def test_a_label_map_never_takes_the_place_of_what_it_is_made_from(studies: Path, command: list[str]) -> None:
    scan = studies / "scan.nii.gz"
    before = scan.read_bytes()
    ended = CliRunner().invoke(cli.app, [*command, str(scan), "-o", str(studies / ".msklabel" / ".." / scan.name)])
    assert isinstance(ended.exception, UserError)
    assert "is what is read; give the label map another name" in str(ended.exception)
    assert scan.read_bytes() == before


@pytest.mark.parametrize(
    ("option", "number", "least"), [("--seed", "-1", 0), ("--epochs", "-1", 1), ("--epochs", "0", 1)]
)
def test_a_demo_with_a_number_that_cannot_be_clears_nothing(
    tmp_path: Path, option: str, number: str, least: int
) -> None:
    kept = tmp_path / SYSTEM / "kept"
    kept.mkdir(parents=True)
    ended = CliRunner().invoke(cli.app, ["demo", SYSTEM, "--out", str(tmp_path), option, number])
    assert ended.exit_code == 2
    assert f"greater than or equal to {least}" in " ".join(ended.output.split())
    assert kept.is_dir()


def test_a_model_is_imported_into_no_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nope: no such folder"):
        train_module.import_nnunet(SYSTEM, tmp_path, tmp_path / "nope")
    assert list(tmp_path.iterdir()) == []


def test_a_training_for_another_profile_than_the_one_in_service_has_to_be_meant(studies: Path) -> None:
    says = "version 0001 in service is of profile demo; give --profile demo, or --from-scratch to change to"
    with pytest.raises(UserError, match=says):
        train_module.train(SYSTEM, studies)
    assert not (studies / ".msklabel" / "msklabel.db").exists()
    for meant in ({"profile": "demo"}, {"from_scratch": True}):
        with pytest.raises(UserError, match="no labelled scans to train on yet"):
            train_module.train(SYSTEM, studies, **meant)


def test_train_and_compare_ask_the_database_that_is_named(studies: Path) -> None:
    with pytest.raises(Unreachable, match="the database does not answer"):
        train_module.train(SYSTEM, studies, profile="demo", database=NOWHERE)
    with pytest.raises(Unreachable, match="the database does not answer"):
        versions_module.compare(SYSTEM, "0001", "0001", studies, database=NOWHERE)
    assert not (studies / ".msklabel" / "msklabel.db").exists()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full or cannot be written; make room"),
        (sqlite3.OperationalError("database or disk is full"), "the disk is full or cannot be written; make room"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "/x/y: cannot be read or written (Permission"),
        (OSError(errno.EROFS, "Read-only file system", "/x/y"), "/x/y: cannot be read or written (Read-only"),
        (OSError(errno.ENOTDIR, "Not a directory", "/x/y"), "/x/y: cannot be read or written (Not a directory"),
        (OSError(errno.EEXIST, "File exists", "/x/y"), "/x/y: cannot be read or written (File exists"),
    ],
)
def test_a_disk_that_takes_nothing_is_one_sentence(
    error: Exception, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert f"msklabel: {says}" in " ".join(capsys.readouterr().err.split())


def test_what_nobody_can_mend_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "app", lambda: {}["missing"])
    with pytest.raises(KeyError):
        cli.main()


@pytest.mark.parametrize(("system", "size"), [("hip_radiograph", "area (cm²) 0.5"), (SYSTEM, "volume (cm³) 0.1")])
def test_a_draft_says_how_large_its_labels_are(monkeypatch: pytest.MonkeyPatch, system: str, size: str) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(infer_module, "console", Console(file=screen, width=100))
    labels = LabelMap(np.zeros((100, 100, 1), np.uint8), np.diag([0.2, 0.2, 1.0, 1]))
    labels.array[:50, :25] = 1
    loaded = load_catalogue(None, [system])[system]
    infer_module._print_sizes(loaded, labels, "draft")
    words = screen.getvalue()
    assert size.split(")")[0] in words
    assert f" {size.split()[-1]} " in next(line for line in words.splitlines() if next(iter(loaded.labels)) in line)


@pytest.mark.parametrize("given", [("thigh_ct,thigh_dixon",), ("thigh_ct", "thigh_dixon")])
def test_systems_to_serve_are_named_at_once_or_one_by_one(
    given: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Mock()
    monkeypatch.setattr("msklabel.serve.run.serve", asked)
    words = [word for name in given for word in ("--models", name)]
    CliRunner().invoke(cli.app, ["serve", "--studies", "scans", *words], catch_exceptions=False)
    assert asked.call_args.args[2] == {"models": "thigh_ct,thigh_dixon"}
