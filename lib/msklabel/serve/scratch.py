"""Where uploads and results lie while somebody needs them: in the state folder, one folder for each server."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path


class Scratch:
    """A folder in ``<state>/tmp``, which is this process's place for temporary files while it is open.

    Args:
        state: The state folder.
    """

    def __init__(self, state: Path) -> None:
        self._all = state / "tmp"
        self._folder: Path | None = None
        self._before: tuple[str | None, str | None] = (None, None)

    def tidy(self) -> None:
        """Remove what servers left that are no more; only while there is no other one."""
        shutil.rmtree(self._all, ignore_errors=True)

    def open(self) -> None:
        """Make it, empty."""
        self._all.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(dir=self._all))
        self._before = tempfile.tempdir, os.environ.get("TMPDIR")
        tempfile.tempdir = os.environ["TMPDIR"] = str(self._folder)

    def close(self) -> None:
        """Remove it with all that is in it."""
        tempfile.tempdir, variable = self._before
        if variable is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = variable
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
