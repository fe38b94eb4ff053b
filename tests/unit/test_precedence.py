"""Background work lets others first, also those of other processes, and never for good."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from msklabel.jobs.precedence import Precedence, waiter

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
