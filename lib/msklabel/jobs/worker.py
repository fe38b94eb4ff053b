"""The child's side: ``python -m msklabel.jobs.worker train|scoring|batch_infer|background|quantities``.

Reads one line of JSON from stdin (never from the command line, which every user of the machine can read), builds the
app, runs the method and writes one line of JSON to stdout. SIGTERM means: stop at the next checkpoint.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import signal
import sys
import threading
import time
from typing import IO, Any

METHODS = ("train", "scoring", "batch_infer", "background", "quantities")
_NICER = 15  # less than an inference, which is nicer than what answers requests
_ORPHAN_GRACE_S = 20.0
logger = logging.getLogger("msklabel.jobs")


def main(method: str) -> int:
    """Run one job; returns the process's exit code."""
    answer = _keep_stdout()
    job = json.loads(_read_line())
    with contextlib.suppress(OSError):
        os.nice(_NICER)
    threading.Thread(target=_stop_when_orphaned, daemon=True).start()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("monailabel").setLevel(logging.WARNING)
    try:
        source = job["app"]
        module, _, name = source["factory"].partition(":")
        app = getattr(importlib.import_module(module), name)(source["app_dir"], source["studies"], source["conf"])
        result = getattr(app, method)(job["request"])
    except Exception as error:
        status, message = _explained(error)
        if status == 500:
            logger.exception("%s failed", method)
        logger.error(message)
        _write(answer, {"error": message, "status": status})
        return 1
    _write(answer, {"result": result})
    return 0


def _keep_stdout() -> IO[str]:
    """Keep stdout for the answer; whatever prints writes to stderr."""
    kept = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return kept


def _read_line() -> bytes:
    """The first line of stdin, and not a byte more: the rest is for the thread that waits for its end."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            raise SystemExit("no job on stdin")
        line += byte
    return line


def _stop_when_orphaned() -> None:
    """Stdin ends when the server does: stop as if asked to."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_ORPHAN_GRACE_S)
    os._exit(1)


def _explained(error: Exception) -> tuple[int, str]:
    """The status and the sentence of an error."""
    from msklabel.store.database import is_unreached  # not before they are needed: they take a while
    from msklabel.store.files import is_storage_full

    status, text = getattr(error, "status", 500), getattr(error, "msg", None) or str(error)
    if status == 500 and is_storage_full(error):
        return 507, "the disk is full or cannot be written: make room, then start it again"
    if status == 500 and is_unreached(error):
        return 503, "the database does not answer any more: start it again later"
    return status, text if status != 500 else f"{type(error).__name__}: {text}"


def _write(answer: IO[str], value: dict[str, Any]) -> None:
    json.dump(value, answer, default=str)
    answer.flush()


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in METHODS:
        raise SystemExit(f"usage: python -m msklabel.jobs.worker {'|'.join(METHODS)}")
    raise SystemExit(main(sys.argv[1]))
