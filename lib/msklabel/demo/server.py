"""A server in a process of its own for the time of a demo."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import requests

from msklabel.errors import UserError

_START_SECONDS = 120.0


@contextmanager
def running_server(studies: Path, conf: Mapping[str, str], log: Path) -> Iterator[str]:
    """Run ``msklabel serve`` on a free port of this machine.

    Args:
        studies: Folder of images.
        conf: ``--conf`` keys and values.
        log: File that takes what the server prints.

    Yields:
        The server's address.

    Raises:
        UserError: If it does not answer in time; the message has its last lines.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = [part for pair in conf.items() for part in ("--conf", *pair)]
    command = [sys.executable, "-m", "msklabel", "serve", "--studies", str(studies), "--port", str(port), *options]
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_until_it_answers(address, process, log)
            yield address
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_it_answers(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(f"{address}/info/", timeout=5).ok:
                return
        except requests.RequestException:
            time.sleep(0.2)
    last = " ".join(log.read_text(encoding="utf-8", errors="replace").split()[-60:])
    raise UserError(f"the server did not start: {last}")
