"""A database of an older msklabel becomes one of today, and one of a newer is left alone."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import OperationalError
from store_samples import blocks, read, scan, store, write

import msklabel.store
from msklabel.errors import UserError
from msklabel.store.database import Database
from msklabel.store.schema import REVISIONS, Base

FIRST = """
CREATE TABLE image (id VARCHAR NOT NULL, file VARCHAR, patient VARCHAR, site VARCHAR, modality VARCHAR,
    size_bytes BIGINT NOT NULL, mtime_ns BIGINT NOT NULL, shape JSON, affine JSON, present BOOLEAN NOT NULL,
    uploaded BOOLEAN NOT NULL, info JSON NOT NULL, created DATETIME NOT NULL, PRIMARY KEY (id));
CREATE INDEX ix_image_present ON image (present);
CREATE TABLE label_version (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, image_id VARCHAR NOT NULL,
    tag VARCHAR NOT NULL, system VARCHAR NOT NULL, author VARCHAR, origin VARCHAR NOT NULL, base_model VARCHAR,
    sha256 VARCHAR NOT NULL, size_bytes BIGINT NOT NULL, classes JSON NOT NULL, info JSON NOT NULL,
    created DATETIME NOT NULL, withdrawn DATETIME, FOREIGN KEY(image_id) REFERENCES image (id));
CREATE INDEX label_version_file ON label_version (sha256);
CREATE INDEX label_version_of_image ON label_version (image_id, tag, system);
CREATE INDEX label_version_of_tag ON label_version (tag, system, image_id);
CREATE TRIGGER label_version_keep BEFORE DELETE ON label_version
    BEGIN SELECT RAISE(ABORT, 'label versions are never changed or deleted'); END;
CREATE TRIGGER label_version_fixed BEFORE UPDATE OF image_id, tag, system, author, origin, base_model, sha256,
    size_bytes, classes, created ON label_version
    BEGIN SELECT RAISE(ABORT, 'label versions are never changed or deleted'); END;
CREATE TABLE setting ("key" VARCHAR NOT NULL, value VARCHAR NOT NULL, PRIMARY KEY ("key"));
PRAGMA user_version=1;
"""
"""What the first msklabel wrote."""


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A studies folder with a label, and its database as the first msklabel would have it."""
    studies = tmp_path / "studies"
    scan(studies / "scan1.nii.gz")
    data = store(studies)
    data.save_label("scan1", str(write(tmp_path / "label.nii.gz", blocks(1, 5))), "final", {"client_id": "ann"})
    file = studies / ".msklabel" / "msklabel.db"
    rows: dict[str, list[tuple[object, ...]]] = {}
    columns: dict[str, str] = {}
    with sqlite3.connect(":memory:") as old:
        old.executescript(FIRST)
        names = {table: [row[1] for row in old.execute(f"PRAGMA table_info({table})")] for table in ("image",)}
        names["label_version"] = [row[1] for row in old.execute("PRAGMA table_info(label_version)")]
    with sqlite3.connect(file) as today:
        for table, found in names.items():
            columns[table] = ", ".join(found)
            rows[table] = today.execute(f"SELECT {columns[table]} FROM {table}").fetchall()
    for part in file.parent.glob("msklabel.db*"):
        part.unlink()
    with sqlite3.connect(file) as old:
        old.executescript(FIRST)
        for table, found in rows.items():
            marks = ", ".join("?" * len(names[table]))
            old.executemany(f"INSERT INTO {table} ({columns[table]}) VALUES ({marks})", found)
    return studies


def test_a_first_database_is_brought_up_to_date_with_a_copy_beside(first: Path) -> None:
    data = store(first)
    [version] = data.store.labels.history("scan1")
    assert (version.author, version.state, version.warnings, version.annotated) == ("ann", "submitted", [], None)
    assert read(data.get_label_uri("scan1", "final")).max() == 5
    data.save_label("scan1", str(write(first.parent / "label.nii.gz", blocks(2))), "final", {})
    assert len(data.store.labels.history("scan1")) == 2
    with sqlite3.connect(first / ".msklabel" / "msklabel.db.schema-0001") as copy:
        assert copy.execute("SELECT author FROM label_version").fetchall() == [("ann",)]
        assert "annotated" not in [row[1] for row in copy.execute("PRAGMA table_info(label_version)")]
    with (
        sqlite3.connect(first / ".msklabel" / "msklabel.db") as today,
        pytest.raises(sqlite3.IntegrityError, match="never changed"),
    ):
        today.execute("UPDATE label_version SET warnings = '[1]'")


def test_a_database_of_a_newer_version_is_refused_and_left_alone(first: Path) -> None:
    store(first)
    file = first / ".msklabel" / "msklabel.db"
    with sqlite3.connect(file) as database:
        database.execute("UPDATE alembic_version SET version_num = '0999'")
    with pytest.raises(UserError, match=f"schema 0999 of a newer msklabel, this one knows {REVISIONS[-1]}"):
        store(first)
    with sqlite3.connect(file) as database:
        assert database.execute("SELECT version_num FROM alembic_version").fetchall() == [("0999",)]


def test_the_scripts_make_the_tables_that_the_classes_describe(tmp_path: Path) -> None:
    database = Database(tmp_path / "new.db")
    database.create()
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, Base.metadata) == []


def test_the_scripts_are_one_chain_and_all_are_known() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(msklabel.store.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    chain = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(chain)) == REVISIONS


def test_threads_write_in_turn_and_none_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(tmp_path / "a.sqlite3")
    database.create()
    done: list[str] = []

    def write(name: str) -> None:
        with database.write():
            done.append(name)

    other = threading.Thread(target=write, args=("second",))
    with database.write():
        other.start()
        other.join(0.2)
        done.append("first")
    other.join(60)
    assert done == ["first", "second"]

    monkeypatch.setattr("msklabel.store.database._BUSY_MS", 50)
    impatient = Database(tmp_path / "a.sqlite3")
    with impatient.write(), pytest.raises(OperationalError, match="locked"), impatient.write():
        pass
    write("third")
    assert done[-1] == "third"


def test_what_is_to_last_is_written_through_whatever_was_written_before(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.sqlite3")
    database.create()
    normal, full = 1, 2
    for lasting in (False, True, True, False, True):
        with database.write(lasting) as session:
            level = session.connection().exec_driver_sql("PRAGMA synchronous").scalar()
        assert level == (full if lasting else normal)


def test_what_was_measured_of_other_numbers_of_slices_is_measured_anew(tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    scan(studies / "scan1.nii.gz")
    data = store(studies)
    data.save_label("scan1", str(write(tmp_path / "label.nii.gz", blocks(1, 5))), "final", {"client_id": "ann"})
    [version] = data.store.quantities.missing("final", 5)
    data.store.quantities.put(version, {"rows": [{"volume_cm3": 1.5}], "slices": {}, "notes": []})
    assert data.store.quantities.missing("final", 5) == []
    with sqlite3.connect(studies / ".msklabel" / "msklabel.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '0005'")
        database.execute("ALTER TABLE job DROP COLUMN server")  # came later
    assert store(studies).store.quantities.missing("final", 5) == [version]
