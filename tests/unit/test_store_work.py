"""Leases, scores, splits, jobs and the audit trail: what annotators, strategies and trainings share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from store_samples import SHAPE, scan, store, write

from msklabel.store.core import Store
from msklabel.store.leases import Leases, in_turn

SCANS = ("a", "b", "c")
pytestmark = pytest.mark.usefixtures("any_database")


class Clock:
    """A time that a test sets."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=timezone.utc)

    def __call__(self) -> datetime:
        return self.now

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def shared(tmp_path: Path) -> Store:
    for name in SCANS:
        scan(tmp_path / f"{name}.nii")
    return store(tmp_path).store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def leases(shared: Store, clock: Clock) -> Leases:
    return Leases(shared._database, clock)


def test_the_first_scan_that_is_free_or_ones_own_is_given(leases: Leases) -> None:
    assert leases.take(SCANS, "ann", 60) == "a"
    assert leases.take(SCANS, "ben", 60) == "b"
    assert leases.take(SCANS, "ann", 60) == "a"
    assert leases.take(("b", "c"), "cem", 60) == "c"
    assert leases.take(SCANS, "dan", 60) is None
    assert leases.held() == {"a": "ann", "b": "ben", "c": "cem"}


def test_a_lease_runs_out_and_activity_renews_it(leases: Leases, clock: Clock) -> None:
    leases.take(("a",), "ann", 60)
    clock.later(50)
    assert leases.renew("a", "ann")
    assert not leases.renew("a", "ben")
    clock.later(50)
    assert leases.take(("a",), "ben", 60) is None
    clock.later(11)
    assert not leases.renew("a", "ann")
    assert leases.held() == {}
    assert leases.take(("a",), "ben", 60) == "a"


def test_a_scan_is_not_kept_for_a_year_by_a_clock_that_was_a_year_fast(leases: Leases, clock: Clock) -> None:
    clock.later(365 * 24 * 3600)
    leases.take(("a",), "ann", 60)
    clock.later(-365 * 24 * 3600)
    assert leases.held() == {}
    assert leases.take(("a",), "ben", 60) == "a"
    clock.later(-30)  # the clocks of two servers differ a little
    assert leases.held() == {"a": "ben"}


def test_a_scan_that_was_given_back_is_free(leases: Leases) -> None:
    leases.take(("a",), "ann", 60)
    assert not leases.release("a", "ben")
    assert leases.held() == {"a": "ann"}
    assert leases.release("a", "ann")
    assert not leases.release("a", "ann")
    assert leases.take(("a",), "ben", 60) == "a"


def test_skipping_is_remembered_and_frees(leases: Leases) -> None:
    leases.take(("a",), "ann", 60)
    leases.skip("a", "ann")
    leases.skip("a", "ann")
    assert leases.skipped("ann") == {"a"}
    assert leases.skipped("ben") == set()
    assert leases.held() == {}


@pytest.mark.parametrize(
    ("first", "last", "order"),
    [("", "", "abcd"), ("c", "", "cabd"), ("", "a", "bcda"), ("db", "a", "bdca"), ("a", "a", "abcd")],
)
def test_what_is_to_be_mended_comes_first_and_what_was_skipped_last(first: str, last: str, order: str) -> None:
    assert "".join(in_turn(iter("abcd"), set(first), set(last))) == order


def test_the_newest_score_of_each_scan(shared: Store) -> None:
    shared.scores.put("a", "thigh", "1", b"old", {"entropy": 0.5})
    shared.scores.put("a", "thigh", "2", b"new", {"entropy": 0.25})
    shared.scores.put("b", "thigh", "1", b"b", {"entropy": float("nan")})
    shared.scores.put("a", "hip", "9", b"other", {})
    assert {key: row.summary for key, row in shared.scores.of("thigh", "1").items()} == {"a": b"old", "b": b"b"}
    newest = shared.scores.newest("thigh")
    assert {key: (row.model_version, row.values) for key, row in newest.items()} == {
        "a": ("2", {"entropy": 0.25}),
        "b": ("1", {"entropy": None}),
    }
    shared.scores.put("a", "thigh", "1", b"again", {"entropy": 0.75})
    assert shared.scores.newest("thigh")["a"].summary == b"again"
    assert len(shared.scores.of("thigh", "1")) == 2


def test_the_first_decision_on_a_patient_holds(shared: Store) -> None:
    assert shared.roles("hip") == {}
    assert shared.assign_roles("hip", {"P1": "train"}) == {"P1": "train"}
    later = shared.assign_roles("hip", {"P1": "validation", "P2": "validation"})
    assert later == {"P1": "train", "P2": "validation"}
    assert shared.roles("hip") == later
    assert shared.roles("thigh") == {}
    with pytest.raises(ValueError, match="role 'test': expected one of train, validation"):
        shared.assign_roles("hip", {"P3": "test"})


def test_of_many_who_decide_at_once_all_hear_the_same(shared: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        roles = [{f"P{n}": ("train", "validation")[(n + turn) % 2] for n in range(20)} for turn in range(8)]
        heard = list(pool.map(lambda wanted: shared.assign_roles("hip", wanted), roles))
    assert all(answer == shared.roles("hip") for answer in heard)


@pytest.mark.parametrize(
    ("table", "column", "message"),
    [
        ("split", "role", "the role that was decided first"),
        ("audit", "who", "never changed or deleted"),
        ("review", "state", "never changed or deleted"),
    ],
)
def test_history_is_only_added_to(shared: Store, table: str, column: str, message: str) -> None:
    shared.assign_roles("hip", {"P1": "train"})
    shared.note("publish", "ann", version="3")
    file = write(shared.state / "label.nii", np.ones(SHAPE, np.uint8))
    version = shared.submit("a", file, "final", {})
    shared.reviews.add(version.id, "accepted")
    for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET {column} = 'x'"):
        with (
            pytest.raises(DBAPIError, match=message),
            shared._database.write() as session,
        ):
            session.execute(text(statement))


def test_jobs_outlive_the_server(shared: Store) -> None:
    shared.jobs.put("1", "train", {"model": "hip"}, "SUBMITTED")
    shared.jobs.put("2", "scoring", {}, "RUNNING", "first line")
    shared.jobs.put("3", "train", {"model": "hip", "seed": 1}, "SUBMITTED")
    shared.jobs.put("1", "train", {"model": "hip"}, "RUNNING")
    [running] = [job for job in shared.jobs.recent() if job.id == "1"]
    shared.jobs.put("1", "train", {"model": "hip"}, "DONE", "epoch 5 of 5")
    assert [job.id for job in shared.jobs.lose_running((), alone=True)] == ["2", "3"]
    assert shared.jobs.lose_running((), alone=True) == []
    told = {job.id: (job.status, job.detail) for job in shared.jobs.recent()}
    assert told == {"1": ("DONE", "epoch 5 of 5"), "2": ("LOST", "first line"), "3": ("LOST", None)}
    done = next(job for job in shared.jobs.recent("train") if job.id == "1")
    assert running.ended is None and done.ended is not None and done.ended >= done.started == running.started
    assert [job.request for job in shared.jobs.recent("scoring")] == [{}]


def test_only_jobs_whose_server_is_no_more_are_lost(shared: Store, any_database: str | None) -> None:
    for number, server in enumerate(("here", "gone", None, "gone", "elsewhere")):
        shared.jobs.put(str(number), "train", {}, "DONE" if number == 3 else "RUNNING", server=server)
    assert [job.id for job in shared.jobs.lose_running(["gone"], alone=False)] == ["1"]
    shared.jobs.put("0", "train", {}, "RUNNING", "epoch 2 of 5", "here")
    assert [job.status for job in shared.jobs.recent()] == ["RUNNING", "LOST", "RUNNING", "DONE", "RUNNING"]
    in_a_file = ["0", "2", "4"]  # beside which nobody is; a PostgreSQL may have others, that use another folder
    lost = shared.jobs.lose_running([], alone=True)
    assert [job.id for job in lost] == (["2"] if any_database else in_a_file)


def test_old_jobs_are_forgotten_but_for_trainings_and_what_runs(shared: Store) -> None:
    for number, kind in enumerate(("train", "quantities", "scoring", "quantities")):
        shared.jobs.put(str(number), kind, {}, "RUNNING" if number == 3 else "DONE")
    week = timedelta(days=7)
    shared.jobs.put("4", "quantities", {}, "SUBMITTED", kept=week)
    assert len(shared.jobs.recent()) == 5
    with shared._database.write() as session:
        session.execute(text("UPDATE job SET started = '2001-12-24 12:00:00' WHERE id <> '4'"))
    shared.jobs.put("4", "quantities", {}, "DONE", kept=week)
    assert len(shared.jobs.recent()) == 5, "only a new one takes their place"
    shared.jobs.put("5", "quantities", {}, "SUBMITTED", kept=week)
    shared.jobs.put("6", "train", {}, "SUBMITTED", kept=week)
    assert {job.id for job in shared.jobs.recent()} == {"0", "2", "3", "4", "5", "6"}


def test_the_audit_trail_tells_who_did_what(shared: Store) -> None:
    shared.note("publish", "ann", version="3")
    shared.note("rollback", None, version="2")
    assert [(line.event, line.who, line.facts) for line in shared.audit()] == [
        ("publish", "ann", {"version": "3"}),
        ("rollback", None, {"version": "2"}),
    ]
    assert [line.event for line in shared.audit(newest=1)] == ["rollback"]
    assert [line.who for line in shared.audit("publish")] == ["ann"]
