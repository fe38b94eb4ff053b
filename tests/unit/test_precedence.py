"""Background work lets others first, also those of other processes, and never for good."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from msklabel.jobs.precedence import Precedence, waiter
from msklabel.jobs.process import Job
from msklabel.serve.background import BackgroundScoring

_HOLDER = """
import sys
from pathlib import Path
from msklabel.jobs.precedence import Precedence
with Precedence(Path(sys.argv[1])).held():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_nobody_is_waited_for_where_nobody_holds(tmp_path: Path) -> None:
    slept: list[float] = []
    waiter(tmp_path / "lock", slept.append)()
    assert slept == []


def test_it_waits_until_the_last_of_several_is_done(tmp_path: Path) -> None:
    precedence = Precedence(tmp_path / "lock")
    first, second = precedence.held(), precedence.held()
    first.__enter__()
    second.__enter__()
    looks: list[int] = []

    def sleep(seconds: float) -> None:
        looks.append(len(looks))
        if len(looks) == 2:
            first.__exit__(None, None, None)
        if len(looks) == 4:
            second.__exit__(None, None, None)

    waiter(tmp_path / "lock", sleep)()
    assert len(looks) == 4


def test_a_process_that_dies_holds_nobody_up(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout and holder.stdout.readline() == "held\n"
    asked, done = threading.Event(), threading.Event()

    def work() -> None:
        waiter(file, lambda seconds: (asked.set(), done.wait(0.05))[0])()
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert asked.wait(30)
    assert not done.is_set()
    holder.kill()
    holder.communicate()
    assert done.wait(30)
    thread.join()


def test_two_servers_of_one_folder_do_not_wait_for_each_other(tmp_path: Path) -> None:
    one, other = Precedence(tmp_path / "lock"), Precedence(tmp_path / "lock")
    with one.held(), other.held():
        pass
    with other.held():
        pass


class Jobs:
    """Remembers what was started; each job ended as it is told."""

    def __init__(self, status: str) -> None:
        self.status = status
        self.started: list[Job] = []

    def running(self, kind: str) -> None:
        return None

    def jobs(self, kind: str) -> list[Job]:
        return self.started

    def start(self, kind: str, request: dict[str, object]) -> None:
        self.started.append(Job(kind, dict(request), status=self.status))


def background(jobs: Jobs, folder: Path, **said: object) -> BackgroundScoring:
    counts = {"version": "v1", "fresh": 0, "stale": 0, "unscored": 0, "broken": 0, "undescribed": 0, **said}
    return BackgroundScoring(jobs, Precedence(folder / "lock"), lambda: {"toy": counts}, lambda: False, 1.0)  # type: ignore[arg-type]


def test_scoring_starts_when_something_is_due_and_there_is_time(tmp_path: Path) -> None:
    jobs = Jobs("DONE")
    busy = background(jobs, tmp_path, stale=3)
    busy._look(idle=False)
    assert jobs.started == []
    busy._look(idle=True)
    assert jobs.started[0].request == {"systems": "toy", "limit": 50}
    assert busy.report["toy"]["stale"] == 3
    background(jobs, tmp_path, undescribed=3)._look(idle=True)
    assert len(jobs.started) == 1  # a model is in service and has judged all
    background(jobs, tmp_path, version=None, undescribed=3)._look(idle=True)
    assert len(jobs.started) == 2


def test_a_job_that_fails_is_not_started_again_at_once(tmp_path: Path) -> None:
    jobs = Jobs("ERROR")
    stubborn = background(jobs, tmp_path, stale=3)
    for _ in range(5):
        stubborn._look(idle=True)
    assert len(jobs.started) == 1
