"""Temporary files of a server lie in its state folder, and go with it; of one that was killed, with the next start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from msklabel.serve.scratch import Scratch

KILLED = """
import os, signal, sys, tempfile
from pathlib import Path
from msklabel.serve.scratch import Scratch
Scratch(Path(sys.argv[1])).open()
Path(tempfile.mkdtemp(prefix="upload-"), "scan").write_text("half")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.delenv("TMPDIR", raising=False)


def test_while_it_is_open_all_temporary_files_lie_in_it_and_then_they_are_gone(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    scratch.open()
    folder = Path(tempfile.mkdtemp())
    assert folder.parent.parent == tmp_path / "tmp"
    assert os.environ["TMPDIR"] == str(folder.parent)
    scratch.close()
    assert not list((tmp_path / "tmp").iterdir())
    assert "TMPDIR" not in os.environ


def test_what_a_killed_server_left_goes_with_the_next_start_and_that_of_a_running_one_stays(tmp_path: Path) -> None:
    running, next_one = Scratch(tmp_path), Scratch(tmp_path)
    running.open()
    mine = Path(tempfile.mkdtemp())
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "tmp").glob("*/*"))) == 2
    next_one.open()
    assert list((tmp_path / "tmp").glob("*/*")) == [mine]
    assert len(list((tmp_path / "tmp").iterdir())) == 4  # two folders, two locks
    next_one.close()
    running.close()
    assert not list((tmp_path / "tmp").iterdir())
