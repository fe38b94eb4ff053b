"""What is kept can be copied while it is used, put back, checked, and read where its database is damaged."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import typer
from store_samples import TISSUES, blocks, meanwhile, read, scan, store, write

from msklabel.cli.backup import verify as verify_command
from msklabel.errors import Conflict, NotFound, ReadOnly, UserError
from msklabel.store.backup import _is_mounted, back_up, restore, verify
from msklabel.store.database import copy_database
from msklabel.store.datastore import MskDatastore
from msklabel.store.files import copy_whole
from msklabel.store.presence import PRESENCE, Presence


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        scan(tmp_path / "studies" / f"{name}.nii.gz")
    return tmp_path / "studies"


@pytest.fixture
def data(studies: Path) -> MskDatastore:
    return store(studies)


def submit(data: MskDatastore, *values: int, image: str = "a") -> None:
    file = write(data.store.studies.parent / f"{threading.get_ident()}.nii.gz", blocks(*values))
    data.save_label(image, str(file), "final", {"client_id": "ann"})


def silent(done: int, of_all: int) -> None:
    assert 0 < done <= of_all


def state_of(studies: Path) -> Path:
    return studies / ".msklabel"


def test_a_backup_made_under_way_is_whole_and_can_be_put_back(studies: Path, data: MskDatastore) -> None:
    model = state_of(studies) / "models" / "hip" / "1" / "weights.safetensors"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"weights")
    submit(data, 1)
    target = studies.parent / "backup"
    with meanwhile(lambda number: submit(data, 1 + number % 7, 1 + number // 7 % 7, image="b")):
        first = back_up(state_of(studies), target, silent)
        second = back_up(state_of(studies), target, silent)
    assert 1 <= first <= second
    later = [version.sha256 for version in data.store.labels.history("b")]

    former = restore(target, state_of(studies), silent)
    assert former is not None
    assert verify(former, silent).problems == []
    assert verify(state_of(studies), silent).problems == []
    again = store(studies)
    history = again.store.labels.history("b")  # what lies in labels/final and is newer than the backup is imported
    kept = [version.sha256 for version in history if version.origin != "imported"]
    assert kept == later[: len(kept)]
    np.testing.assert_array_equal(read(again.get_label_uri("a", "final")), blocks(1))
    assert model.read_bytes() == b"weights"
    submit(again, 3)


def test_the_database_of_a_backup_is_one_file_that_can_be_read_where_nothing_may_be_written(
    studies: Path, data: MskDatastore
) -> None:
    submit(data, 1)
    target = studies.parent / "backup"
    back_up(state_of(studies), target, silent)
    assert sorted(path.name for path in target.iterdir()) == ["backup.json", "labels", "msklabel.db"]
    with closing(sqlite3.connect(f"file:{target / 'msklabel.db'}?mode=ro", uri=True)) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)  # WAL needs files beside it
    assert verify(target, silent).problems == []
    restore(target, state_of(studies), silent)
    assert sorted(path.name for path in target.iterdir()) == ["backup.json", "labels", "msklabel.db"]


def test_verify_names_what_is_damaged_or_missing(
    studies: Path, data: MskDatastore, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(data, 1)
    submit(data, 2)
    assert verify(state_of(studies), silent).labels == 2
    damaged, missing = (data.store.labels.file(version) for version in data.store.labels.history("a"))
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(bytes(content))
    missing.unlink()
    problems = verify(state_of(studies), silent).problems
    assert sorted(problems) == sorted(
        [
            f"label file {damaged.name} is damaged: its checksum is another",
            f"label file {missing.name} is missing",
        ]
    )
    with pytest.raises(typer.Exit):
        verify_command(studies)
    assert damaged.name in capsys.readouterr().err
    with pytest.raises(Conflict, match="label file"):
        back_up(state_of(studies), studies.parent / "backup", silent)


@pytest.mark.parametrize("part", ["header", "middle", "empty", "gone", "cut"])
def test_with_a_damaged_database_what_can_be_read_is_served_and_nothing_stored(
    studies: Path, data: MskDatastore, part: str
) -> None:
    for number in range(1, 8):
        submit(data, number)
        submit(data, number, image="b")
    back_up(state_of(studies), studies.parent / "backup", silent)
    data.store._database.engine.dispose()
    file = state_of(studies) / "msklabel.db"
    for beside in state_of(studies).glob("msklabel.db-*"):
        beside.unlink()
    content = bytearray((studies.parent / "backup" / "msklabel.db").read_bytes())
    places = {"header": range(100), "middle": range(4096 * 3, len(content) - 4096, 7)}
    for place in places.get(part, ()):
        content[place] ^= 0x55
    sizes = {"empty": 0, "gone": 0, "cut": len(content) // 2}
    file.write_bytes(bytes(content[: sizes.get(part, len(content))]))
    if part == "gone":
        file.unlink()
    before = file.read_bytes() if file.exists() else b""

    damaged = store(studies)
    assert "msklabel restore BACKUP" in str(damaged.store.read_only)
    assert damaged.list_images() == ["a", "b"]
    assert damaged.is_readable("a")
    with pytest.raises(ReadOnly, match=r"is damaged .*, so nothing can be stored: stop the server and run"):
        submit(damaged, 1)
    with pytest.raises(ReadOnly):
        damaged.take_next(["a"], "ann")
    assert (file.read_bytes() if file.exists() else b"") == before

    restore(studies.parent / "backup", state_of(studies), silent)
    whole = store(studies)
    assert whole.store.read_only is None
    assert len(whole.store.labels.history("a")) == 7
    submit(whole, 1)


def test_what_cannot_be_backed_up_or_restored(studies: Path, data: MskDatastore) -> None:
    state, other = state_of(studies), studies.parent / "other"
    with pytest.raises(UserError, match="lies in the state folder"):
        back_up(state, state / "backup", silent)
    with pytest.raises(UserError, match="holds something else"):
        back_up(state, studies, silent)
    with pytest.raises(NotFound, match="no database"):
        back_up(other, studies.parent / "backup", silent)
    with pytest.raises(NotFound, match="no database"):
        verify(other, silent)
    with pytest.raises(NotFound, match="no complete backup"):
        restore(other, state, silent)
    back_up(state, other, silent)
    server = Presence(state / PRESENCE)
    server.enter(lambda ended, alone: None)
    with pytest.raises(Conflict, match="a server uses"):
        restore(other, state, silent)
    server.leave()
    restore(other, state, silent)


def test_a_restore_that_fails_leaves_nothing_behind(studies: Path, data: MskDatastore) -> None:
    state, backup = state_of(studies), studies.parent / "backup"
    submit(data, 1)
    back_up(state, backup, silent)
    next((backup / "labels").iterdir()).write_bytes(b"no label")
    before = {*studies.rglob("*"), state / PRESENCE}
    with pytest.raises(Conflict, match="damaged"):
        restore(backup, state, silent)
    assert set(studies.rglob("*")) == before


def test_a_state_folder_that_is_a_volume_is_restored_inside(
    studies: Path, data: MskDatastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, backup = state_of(studies), studies.parent / "backup"
    monkeypatch.setattr("msklabel.store.backup._is_mounted", lambda folder: True)
    submit(data, 1)
    back_up(state, backup, silent)
    beside = sorted(state.parent.iterdir())
    (state / "note").write_text("of mine")
    first = restore(backup, state, silent)
    assert first and first.parent == state and (first / "note").read_text() == "of mine"
    again = restore(backup, state, silent)
    assert again and first.is_dir() and not (again / first.name).exists()
    assert not (state / "note").exists() and not list(state.glob(".restoring"))
    assert sorted(state.parent.iterdir()) == beside
    assert not verify(state, silent).problems and verify(state, silent).labels


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="needs Linux")
def test_what_is_mounted_is_known_from_a_folder_beside_which_all_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _is_mounted(Path("/proc")) and not _is_mounted(tmp_path) and not _is_mounted(tmp_path / "none")
    monkeypatch.setattr(Path, "is_mount", lambda _: False)  # so looks a folder of the same disk
    assert _is_mounted(Path("/proc/sys").parent)
    (tmp_path / "state").mkdir()
    monkeypatch.setattr("msklabel.store.backup.os.access", lambda *_: False)
    assert _is_mounted(tmp_path / "state")


def test_models_that_are_being_written_are_no_part_of_a_backup(
    studies: Path, data: MskDatastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, models = state_of(studies), state_of(studies) / "models" / "toy"
    for name in ("0001", ".building-x", "training", "runs"):
        (models / name).mkdir(parents=True)
        (models / name / "file").write_text(name)
    (models / ".serving-abc").write_text("0001")
    (models / "serving").write_text("0001")

    def vanishing(file: Path, copy: Path, replace: bool) -> None:
        if file.parent.name == "runs":
            file.unlink()
        copy_whole(file, copy, replace)

    monkeypatch.setattr("msklabel.store.backup.copy_whole", vanishing)
    back_up(state, studies.parent / "backup", silent)
    copied = studies.parent / "backup" / "models" / "toy"
    found = sorted(str(path.relative_to(copied)) for path in copied.rglob("*") if path.is_file())
    assert found == ["0001/file", "serving"]


def test_a_state_folder_that_cannot_be_written_is_one_sentence(studies: Path) -> None:
    with pytest.raises(UserError, match=r"the state folder /proc/.* cannot be written .*--conf state DIR"):
        MskDatastore(studies, Path("/proc/msklabel"), {TISSUES.name: TISSUES})


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "no.db").write_bytes(b"no database" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        copy_database(tmp_path / "no.db", tmp_path / "copy.db")
    assert [file.name for file in tmp_path.iterdir()] == ["no.db"]


def test_a_backup_of_other_studies_or_a_later_one_is_not_replaced(studies: Path, data: MskDatastore) -> None:
    target = studies.parent / "backup"
    submit(data, 1)
    back_up(state_of(studies), target, silent)
    other = studies.parent / "other"
    scan(other / "a.nii.gz")
    submit(store(other), 2)
    with pytest.raises(Conflict, match=r"backup holds 1 label\(s\) that are not known here"):
        back_up(state_of(other), target, silent)
    assert verify(target, silent).labels == 1
    assert not list(target.glob("*.new"))

    earlier = studies.parent / "earlier"
    back_up(state_of(studies), earlier, silent)
    submit(data, 3)
    back_up(state_of(studies), target, silent)
    restore(earlier, state_of(studies), silent)
    with pytest.raises(Conflict, match="a later one of these; give a folder of its own"):
        back_up(state_of(studies), target, silent)
    assert verify(target, silent).labels == 2

    (target / "msklabel.db").write_bytes(b"damaged")
    assert back_up(state_of(studies), target, silent) == 1
    assert verify(target, silent).problems == []
