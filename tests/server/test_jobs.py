"""Jobs run as child processes, one of a kind at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import psutil
import pytest
from live import wait_for

from msklabel.errors import UserError
from msklabel.jobs.child import AppSource, JobError
from msklabel.jobs.process import AlreadyRunning, JobRunner
from msklabel.store.presence import Presence

HERE = Path(__file__).resolve().parent


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobRunner]:
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    source = AppSource("job_app:JobApp", "", str(tmp_path), {})
    runner = JobRunner(source, tmp_path / "logs", grace_s=1.0)
    yield runner
    (tmp_path / "go").touch()
    runner.close()


def test_a_job_tells_its_result_and_its_last_lines(runner: JobRunner, tmp_path: Path) -> None:
    job = runner.start("train", {"do": "lines"})
    assert set(job.describe()) == {"id", "status", "request", "start_ts"}
    assert job.outcome.result(30) == {"did": "lines"}
    status = job.describe()
    assert status["status"] == "DONE"
    assert status["details"] == [f"line {number}" for number in range(30, 50)]
    assert json.loads(json.dumps(status)) == status
    (log,) = (tmp_path / "logs").glob("train-*.log")
    assert "line 0\n" in log.read_text() and "printed by a library\n" in log.read_text()


def test_a_job_counts_as_running_from_the_moment_that_it_is_started(runner: JobRunner) -> None:
    for number in range(20):
        job = runner.start("train", {"do": "wait"}, enqueue=True)
        assert runner.running("train") is not None, number
        assert runner.stop("train") is job


def test_no_job_that_waits_is_forgotten_and_not_any_number_may_wait(runner: JobRunner) -> None:
    first = runner.start("train", {"do": "wait"})
    waiting = [runner.start("train", {"do": "lines"}, enqueue=True) for _ in range(100)]
    assert runner.jobs("train") == [first, *waiting]
    with pytest.raises(AlreadyRunning, match="100 train jobs are waiting already"):
        runner.start("train", {"do": "lines"}, enqueue=True)
    for _ in range(101):
        runner.stop("train")
    assert {job.status for job in (first, *waiting)} == {"STOPPED"}
    runner.start("train", {"do": "lines"}, enqueue=True)


def test_a_large_result_comes_through(runner: JobRunner) -> None:
    assert len(runner.start("train", {"do": "large"}).outcome.result(30)) == 1000


@pytest.mark.parametrize(
    ("do", "status", "says"),
    [
        ("refuse", 409, "nothing to train on"),
        ("crash", 500, "ZeroDivisionError: oops"),
        ("die", 500, "was ended by signal 9"),
    ],
)
def test_a_job_that_fails_says_why(runner: JobRunner, do: str, status: int, says: str) -> None:
    job = runner.start("train", {"do": do})
    with pytest.raises(JobError, match=says) as failed:
        job.outcome.result(30)
    assert failed.value.status == status
    assert job.status == "ERROR"
    assert says in job.describe()["details"][-1]


@pytest.mark.parametrize("do", ["fill", "fill the database"])
def test_a_job_that_meets_a_full_disk_can_still_say_so(
    runner: JobRunner, do: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: pytest.fail("the disk is full"))
    job = runner.start("train", {"do": do})
    with pytest.raises(JobError, match="the disk is full or cannot be written: make room") as error:
        job.outcome.result(30)
    assert error.value.status == 507
    assert "the disk is full" in job.describe()["details"][-1]


def test_jobs_of_one_kind_wait_for_each_other(runner: JobRunner, tmp_path: Path) -> None:
    first = runner.start("train", {"do": "wait"})
    with pytest.raises(AlreadyRunning, match="enqueue"):
        runner.start("train", {"do": "lines"})
    second = runner.start("train", {"do": "lines"}, enqueue=True)
    wait_for((tmp_path / "started").exists)
    assert (first.status, second.status) == ("RUNNING", "SUBMITTED")
    assert runner.running("train") is first
    (tmp_path / "go").touch()
    second.outcome.result(30)
    assert [job.status for job in runner.jobs("train")] == ["DONE", "DONE"]
    assert runner.running("train") is None


def test_a_stopped_job_writes_its_checkpoint_and_the_next_may_be_asked_for_at_once(
    runner: JobRunner, tmp_path: Path
) -> None:
    first = runner.start("train", {"do": "wait", "polite": True})
    wait_for((tmp_path / "started").exists)
    assert runner.stop("train") is first
    assert first.describe()["status"] == "STOPPED"
    assert runner.running("train") is None
    second = runner.start("train", {"do": "lines"})
    second.outcome.result(30)
    assert (tmp_path / "checkpoint").exists()
    assert (first.status, second.status) == ("STOPPED", "DONE")


def test_a_job_that_does_not_stop_is_killed(runner: JobRunner, tmp_path: Path) -> None:
    job = runner.start("train", {"do": "wait", "stubborn": True})
    wait_for((tmp_path / "started").exists)
    start = time.monotonic()
    runner.stop("train")
    with pytest.raises(JobError, match="signal 9"):
        job.outcome.result(30)
    assert 0.9 < time.monotonic() - start < 10
    assert job.status == "STOPPED"


def test_a_waiting_job_can_be_stopped(runner: JobRunner, tmp_path: Path) -> None:
    runner.start("train", {"do": "wait", "polite": True})
    wait_for((tmp_path / "started").exists)
    waiting = runner.start("train", {"do": "lines"}, enqueue=True)
    runner.stop("train")
    if waiting.status == "SUBMITTED":
        runner.stop("train")
    assert waiting.describe()["status"] == "STOPPED"
    assert waiting.describe()["details"]


def test_every_job_is_recorded_from_its_request_to_its_last_line(tmp_path: Path, runner: JobRunner) -> None:
    kept: list[tuple[str, str, str | None]] = []
    recorded = JobRunner(
        AppSource("job_app:JobApp", "", str(tmp_path), {}),
        tmp_path / "logs",
        grace_s=1.0,
        record=lambda _id, _kind, request, status, detail: kept.append((request["do"], status, detail)),
    )
    recorded.start("train", {"do": "refuse"}).outcome.exception(30)
    recorded.start("train", {"do": "wait", "polite": True})
    wait_for((tmp_path / "started").exists)
    waiting = recorded.start("train", {"do": "lines"}, enqueue=True)
    recorded.stop("train")
    waiting.outcome.result(30)
    recorded.close()
    last = {do: (status, detail) for do, status, detail in kept}
    refused = [status for do, status, _ in kept if do == "refuse"]
    assert (refused[0] in ("SUBMITTED", "RUNNING"), refused[-1]) == (True, "ERROR")
    assert last["refuse"][0] == "ERROR" and "nothing to train on" in str(last["refuse"][1])
    assert (last["wait"][0], last["lines"]) == ("STOPPED", ("DONE", "line 49"))
    assert ("lines", "SUBMITTED") in [(do, status) for do, status, _ in kept]


def test_a_record_that_fails_stops_no_job(tmp_path: Path, runner: JobRunner) -> None:
    def full(*_: object) -> None:
        raise OSError("the disk is full")

    recorded = JobRunner(AppSource("job_app:JobApp", "", str(tmp_path), {}), tmp_path / "logs", 1.0, record=full)
    assert recorded.start("train", {"do": "lines"}).outcome.result(30) == {"did": "lines"}
    recorded.close()


def test_a_server_hears_which_others_ended_and_whether_it_is_alone(tmp_path: Path) -> None:
    first, second, third, fourth, fifth = (Presence(tmp_path / "lock") for _ in range(5))
    heard: list[tuple[set[str], bool]] = []

    def arrive(ended: Collection[str], alone: bool) -> None:
        heard.append((set(ended), alone))

    def fail(ended: Collection[str], alone: bool) -> None:
        raise OSError("the disk is full")

    first.enter(arrive)
    second.enter(arrive)
    assert heard == [(set(), True), (set(), False)]
    first.leave()
    with pytest.raises(OSError, match="full"):
        third.enter(fail)
    fourth.enter(arrive)
    assert heard[2:] == [({first.server}, False)], "nobody has dealt with it"
    for presence in (second, third, fourth):
        presence.leave()
    fifth.enter(arrive)
    fifth.leave()
    assert heard[3:] == [({second.server, third.server, fourth.server}, True)]


def test_no_job_is_started_by_a_server_that_ends(runner: JobRunner, tmp_path: Path) -> None:
    runner.start("scoring", {}).outcome.exception(30)
    runner.close()
    with pytest.raises(UserError, match="the server is ending") as refused:
        runner.start("train", {"do": "wait"}, enqueue=True)
    assert refused.value.status == 503
    assert runner.jobs("train") == [] and not (tmp_path / "started").exists()


def test_a_job_that_is_stopped_while_its_disk_is_full_ends_no_other(
    runner: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> None:
        runner.stop("train")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("msklabel.jobs.process.tempfile.TemporaryDirectory", full)
        stopped = runner.start("train", {"do": "lines"})
        with pytest.raises(JobError, match="stopped before it started"):
            stopped.outcome.result(30)
        wait_for(lambda: runner.running("train") is None)
        time.sleep(0.2)
    assert stopped.status == "STOPPED"
    assert runner.start("train", {"do": "lines"}).outcome.result(30) == {"did": "lines"}


def test_nothing_to_stop(runner: JobRunner) -> None:
    assert runner.stop("train") is None


def test_a_job_yields_to_the_server(runner: JobRunner, tmp_path: Path) -> None:
    job = runner.start("train", {"do": "wait"})
    wait_for((tmp_path / "started").exists)
    assert job.child is not None
    assert psutil.Process(job.child.process.pid).nice() >= 15
    assert "train" in psutil.Process(job.child.process.pid).cmdline()[-1]  # and nothing of the request


def test_a_job_ends_with_its_server(tmp_path: Path) -> None:
    server = f"""
import time
from pathlib import Path
from msklabel.jobs.child import AppSource
from msklabel.jobs.process import JobRunner
runner = JobRunner(AppSource("job_app:JobApp", "", {str(tmp_path)!r}, {{}}), Path({str(tmp_path)!r}) / "logs")
job = runner.start("train", {{"do": "wait", "polite": True}})
while job.child is None:
    time.sleep(0.01)
print(job.child.process.pid, flush=True)
time.sleep(60)
"""
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    with subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        wait_for((tmp_path / "started").exists)
        process.send_signal(signal.SIGKILL)
    child.wait(20)
    assert (tmp_path / "checkpoint").exists()
