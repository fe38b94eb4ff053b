"""Where uploads and results lie while somebody needs them: in the state folder, one folder for each server."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import psutil


class Scratch:
    """``<state>/tmp/<process id>``, which is this process's place for temporary files while it is open.

    Args:
        state: The state folder.
    """

    def __init__(self, state: Path) -> None:
        self.folder = state / "tmp" / str(os.getpid())
        self._before: tuple[str | None, str | None] = (None, None)

    def open(self) -> None:
        """Make it, empty; remove what servers left that are no more."""
        if self.folder.parent.is_dir():
            for old in self.folder.parent.iterdir():
                if not old.name.isdecimal() or int(old.name) == os.getpid() or not psutil.pid_exists(int(old.name)):
                    shutil.rmtree(old, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._before = tempfile.tempdir, os.environ.get("TMPDIR")
        tempfile.tempdir = os.environ["TMPDIR"] = str(self.folder)

    def close(self) -> None:
        """Remove it with all that is in it."""
        tempfile.tempdir, variable = self._before
        if variable is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = variable
        shutil.rmtree(self.folder, ignore_errors=True)
