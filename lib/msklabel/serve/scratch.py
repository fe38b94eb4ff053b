"""Where uploads and results lie while somebody needs them: in the state folder, one folder for each server."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

_LOCK = ".lock"  # ends the name of the file beside a folder that its server holds a lock on, however it ends


class Scratch:
    """A folder in ``<state>/tmp``, which is this process's place for temporary files while it is open.

    Args:
        state: The state folder.
    """

    def __init__(self, state: Path) -> None:
        self._all = state / "tmp"
        self._folder: Path | None = None
        self._held: IO[bytes] | None = None
        self._before: tuple[str | None, str | None] = (None, None)

    def tidy(self) -> None:
        """Remove what servers left that are no more; only while there is no other one."""
        shutil.rmtree(self._all, ignore_errors=True)

    def open(self) -> None:
        """Make it, empty; remove those of servers that ended without doing so."""
        self._all.mkdir(parents=True, exist_ok=True)
        for lock in self._all.glob(f"*{_LOCK}"):
            with suppress(OSError), lock.open("rb+") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink()
        handle, name = tempfile.mkstemp(suffix=_LOCK, dir=self._all)
        self._held = os.fdopen(handle, "rb+")
        with suppress(OSError):  # a file system without locks: another server's start cannot know that it is gone
            fcntl.flock(self._held, fcntl.LOCK_EX)
        self._folder = Path(name).with_suffix("")
        self._folder.mkdir(mode=0o700)
        self._before = tempfile.tempdir, os.environ.get("TMPDIR")
        tempfile.tempdir = os.environ["TMPDIR"] = str(self._folder)

    def close(self) -> None:
        """Remove it with all that is in it."""
        tempfile.tempdir, variable = self._before
        if variable is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = variable
        if self._folder and self._held:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.with_suffix(_LOCK).unlink(missing_ok=True)
            self._held.close()
