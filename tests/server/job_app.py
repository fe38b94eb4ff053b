"""An app for the tests of jobs: it does what the request says."""

from __future__ import annotations

import errno
import signal
import sys
import time
from pathlib import Path
from typing import Any

from msklabel.errors import Conflict


class JobApp:
    """Stands for the MONAI Label app in a job's process."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.folder = Path(studies)

    def train(self, request: dict[str, Any]) -> Any:
        what = request["do"]
        print("printed by a library")
        print("first line", file=sys.stderr, flush=True)
        if what == "refuse":
            raise Conflict("nothing to train on")
        if what == "crash":
            raise ZeroDivisionError("oops")
        if what == "fill":
            raise RuntimeError("Io Error: No space left on device (os error 28)")
        if what == "fill the database":
            raise ValueError("not stored") from OSError(errno.ENOSPC, "no room")
        if what == "die":
            signal.raise_signal(signal.SIGKILL)
        if what == "lines":
            for number in range(50):
                print(f"line {number}", file=sys.stderr)
        if what == "large":
            return ["x" * 1000] * 1000
        if what == "wait":
            self._wait(request)
        return {"did": what}

    def _wait(self, request: dict[str, Any]) -> None:
        """Until the file ``go`` is there; SIGTERM ends it, politely or not at all."""
        asked: list[int] = []
        if request.get("polite") or request.get("stubborn"):
            signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
        (self.folder / "started").touch()
        while not (self.folder / "go").exists() and not (asked and request.get("polite")):
            time.sleep(0.02)
        if asked:
            (self.folder / "checkpoint").touch()
