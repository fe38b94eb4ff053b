"""A store in PostgreSQL is backed up while it is used, and put back into an empty one or into a file."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
import store_samples
from postgres import Cluster
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from store_samples import TISSUES, blocks, meanwhile, read, scan, store, write
from test_store_backup import silent

from msklabel.errors import Conflict, NotFound, Unreachable
from msklabel.serve.errors import explain
from msklabel.store.backup import back_up, restore, verify
from msklabel.store.database import is_unreached
from msklabel.store.datastore import MskDatastore
from msklabel.store.schema import Base


@pytest.fixture
def url(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> str:
    url = cluster.new_database()
    monkeypatch.setattr(store_samples, "DATABASE", url)
    return url


@pytest.fixture
def data(tmp_path: Path, url: str) -> MskDatastore:
    for name in ("a", "b"):
        scan(tmp_path / "studies" / f"{name}.nii.gz")
    return store(tmp_path / "studies")


def submit(data: MskDatastore, *values: int, image: str = "a") -> int:
    file = write(data.store.studies.parent / f"{threading.get_ident()}.nii.gz", blocks(*values))
    return data.submit(image, file, "final", {"client_id": "ann"}).id


def rows(data: MskDatastore) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table, as its own classes read it."""
    with data.store._database.snapshot() as reading:
        return {
            table.name: sorted((tuple(map(repr, row)) for row in reading.execute(table.select())), key=repr)
            for table in Base.metadata.sorted_tables
        }


def test_what_was_kept_comes_back_row_by_row_and_goes_on(data: MskDatastore, url: str, cluster: Cluster) -> None:
    first = submit(data, 1, 5)
    data.store.reviews.add(submit(data, 2), "rejected", "too thick", "rita")
    data.store.scores.put("a", "hip", "1", b"\x00summary", {"entropy": 0.5})
    data.store.jobs.put("1", "train", {"model": "hip"}, "DONE", "epoch 5 of 5")
    data.store.assign_roles("hip", {"P1": "train"})
    data.store.quantities.put(first, {"rows": [{"volume_cm3": 1.5}], "slices": {}, "notes": []})
    data.take_next(["b"], "ann")
    state, backup = data.store.state, data.store.studies.parent / "backup"
    assert back_up(state, backup, silent, url) == 2
    assert sorted(path.name for path in backup.iterdir()) == ["backup.json", "labels", "msklabel.db"]
    kept = rows(data)
    record = json.loads((backup / "backup.json").read_text())
    assert record["rows"] == {name: len(found) for name, found in kept.items()}
    assert verify(backup, silent).problems == []  # it can be checked where there is no PostgreSQL

    store_samples.DATABASE = cluster.new_database()
    former = restore(backup, state, silent, store_samples.DATABASE)
    assert former is not None and not (state / "msklabel.db").exists()
    assert verify(state, silent, store_samples.DATABASE).problems == []
    again = store(data.store.studies)
    assert rows(again) == kept
    np.testing.assert_array_equal(read(again.store.labels.file(again.store.labels.get(first))), blocks(1, 5))
    assert submit(again, 3) > max(first, *(version.id for version in data.store.labels.history("a")))

    shutil.rmtree(data.store.studies / "labels")  # what lies there and is newer than the backup would be imported
    store_samples.DATABASE = None  # and into a file, where no PostgreSQL is at hand
    restore(backup, state, silent)
    in_a_file = store(data.store.studies)
    assert rows(in_a_file) == kept
    submit(in_a_file, 4)


def test_a_job_that_ran_when_the_backup_was_made_is_lost(data: MskDatastore, url: str, cluster: Cluster) -> None:
    submit(data, 1)
    data.store.jobs.put("1", "train", {"model": "hip"}, "RUNNING", "epoch 2 of 5", "its server")
    backup = data.store.studies.parent / "backup"
    back_up(data.store.state, backup, silent, url)
    store_samples.DATABASE = cluster.new_database()
    restore(backup, data.store.state, silent, store_samples.DATABASE)
    assert [job.status for job in store(data.store.studies).store.jobs.recent()] == ["LOST"]
    assert [job.status for job in data.store.jobs.recent()] == ["RUNNING"]


def test_a_backup_under_way_is_of_one_instant(data: MskDatastore, url: str) -> None:
    submit(data, 1)

    def annotate(number: int) -> None:
        data.store.reviews.add(submit(data, 1 + number % 7, 1 + number // 7 % 7, image="b"), "accepted")

    backup = data.store.studies.parent / "backup"
    with meanwhile(annotate):
        for _ in range(3):
            back_up(data.store.state, backup, silent, url)
            with sqlite3.connect(backup / "msklabel.db") as copy:
                rows_of_b = copy.execute("SELECT state FROM label_version WHERE image_id = 'b' ORDER BY id")
                states = [row[0] for row in rows_of_b]
                reviews = copy.execute("SELECT count(*) FROM review").fetchone()[0]
                submits = copy.execute("SELECT count(*) FROM audit WHERE event = 'submit'").fetchone()[0]
            assert states.count("accepted") == reviews and len(states) + 1 == submits
            assert set(states[:-1]) <= {"accepted"}
            assert verify(backup, silent).problems == []


def test_what_is_wrong_is_said_and_nothing_is_overwritten(data: MskDatastore, url: str, cluster: Cluster) -> None:
    submit(data, 1)
    state, backup = data.store.state, data.store.studies.parent / "backup"
    with pytest.raises(NotFound, match="give its address by --database"):
        back_up(state, backup, silent)
    with pytest.raises(NotFound, match="nothing of msklabel"):
        back_up(state, backup, silent, cluster.new_database())
    with pytest.raises(Unreachable, match="does not answer"):
        back_up(state, backup, silent, "postgresql://nobody@/none?host=/nowhere")
    back_up(state, backup, silent, url)
    before = rows(data)
    with pytest.raises(Conflict, match="not empty; give a new one"):
        restore(backup, state, silent, url)
    assert rows(data) == before and verify(state, silent, url).problems == []
    file = data.store.labels.file(data.store.labels.newest("a", "final"))
    file.unlink()
    assert verify(state, silent, url).problems == [f"label file {file.name} is missing"]
    with data.store._database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE job RENAME TO gone"))
    [damaged, _missing] = verify(state, silent, url).problems
    assert damaged.startswith("database: table job: ")


def test_a_postgresql_that_was_restarted_is_used_again_and_one_that_is_down_is_said(
    cluster: Cluster, tmp_path: Path
) -> None:
    scan(tmp_path / "s" / "a.nii.gz")
    used = MskDatastore(tmp_path / "s", tmp_path / "state", {TISSUES.name: TISSUES}, database=cluster.new_database())
    label = str(write(tmp_path / "l.nii.gz", blocks(3)))
    used.save_label("a", label, "final", {})
    with cluster.down():
        for asked in (used.list_images, lambda: used.save_label("a", label, "final", {})):
            with pytest.raises(OperationalError) as error:
                asked()
            assert is_unreached(error.value)
            status, sentence = explain(error.value)
            assert (status, "the database does not answer" in sentence) == (503, True)
    assert used.list_images() == ["a"]
    assert used.save_label("a", label, "final", {}) == "a"
