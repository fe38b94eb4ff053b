"""``make serve`` as a new user types it, in a copy of the checkout, with the environment of this test run."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import requests

ROOT = Path(__file__).resolve().parents[2]
COUNT = 12
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git knows or would take up."""
    folder = tmp_path_factory.mktemp("make") / "check out"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def start(checkout: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    """``make serve`` with this environment as it is, and with the copy's code, in a process group of its own."""
    code = os.pathsep.join(str(checkout / folder) for folder in ("lib", "sample_data"))
    command = ["make", "serve", f"PORT={port}", f"VENV={sys.prefix}", f"--old-file={sys.prefix}/.installed"]
    with log.open("wb") as stream:
        return subprocess.Popen(
            command,
            cwd=checkout,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "COLUMNS": "120", "PYTHONPATH": code},
        )


class Server:
    """``make serve`` on a free port, until the block ends."""

    def __init__(self, checkout: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = checkout.parent / f"make-{port}.log"
        self.started = time.monotonic()
        self.make = start(checkout, port, self.log)

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def __enter__(self) -> Server:
        while time.monotonic() < self.started + 300:
            assert self.make.poll() is None, self.said
            # The port is taken before the program is loaded, so an early request may wait for long.
            with contextlib.suppress(requests.ConnectionError, requests.Timeout):
                if requests.get(f"{self.url}/info/", timeout=30).status_code == 200:
                    self.seconds = time.monotonic() - self.started
                    return self
            time.sleep(0.1)
        self.__exit__()
        raise AssertionError(f"the server does not answer:\n{self.said}")

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.make.pid, signal.SIGKILL)
        self.make.wait(10)

    def interrupt(self) -> list[psutil.Process]:
        """Press Ctrl-C, wait for make to end, and return what is left of the process group."""
        os.killpg(self.make.pid, signal.SIGINT)
        self.make.wait(30)
        return [process for process in psutil.process_iter() if _group(process.pid) == self.make.pid]


def _group(pid: int) -> int | None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        return os.getpgid(pid)
    return None


@pytest.fixture(scope="module")
def first(checkout: Path) -> str:
    """What the first start printed, after the server was used and stopped."""
    with Server(checkout) as server:
        info = requests.get(f"{server.url}/info/", timeout=30).json()
        assert info["datastore"]["total"] == COUNT
        assert "hip_tissue_ct_threshold" in info["models"]
        home = requests.get(f"{server.url}/", timeout=30)
        assert home.headers["content-type"].startswith("text/html")
        assert "Not for clinical use" in home.text
        assert "hip_tissue_ct" in home.text
        docs = requests.get(f"{server.url}/docs", timeout=30)
        assert "/activelearning/{strategy}" in docs.text
        assert server.interrupt() == []
        with pytest.raises(requests.ConnectionError):
            requests.get(server.url, timeout=5)
        said = server.said.replace(server.url, "http://ADDRESS")
    print(f"first start with samples but without installing: {server.seconds:.1f} s")
    return said


def test_the_first_start_makes_samples_and_answers(first: str, checkout: Path) -> None:
    assert "msklabel_phantoms hip_tissue_ct" in first
    assert len(list((checkout / "sample_data" / "hip_tissue_ct" / "images").glob("*.nii.gz"))) == COUNT


def test_it_says_what_to_do_next_in_slicer_and_in_a_browser(first: str) -> None:
    words = " ".join(re.sub(r"[│╭╮╰╯─\n]", " ", first).split())
    assert "install the extension MONAILabel" in words
    assert "enter http://ADDRESS as MONAI Label server" in words
    assert "In a browser: http://ADDRESS" in words
    assert "http://ADDRESS/docs" in words
    assert "Not for clinical use" in words


def test_ctrl_c_ends_it_without_a_traceback(first: str) -> None:
    assert "Traceback" not in first
    assert "Error" not in first


def test_the_second_start_generates_and_installs_nothing(first: str, checkout: Path) -> None:
    with Server(checkout) as server:
        print(f"second start: {server.seconds:.1f} s")
        assert server.interrupt() == []
    assert "msklabel_phantoms" not in server.said
    assert "install.sh" not in server.said


def test_a_port_that_is_taken_is_one_sentence(first: str, checkout: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = start(checkout, port, checkout.parent / "taken.log")
        assert ended.wait(120) == 2
    said = (checkout.parent / "taken.log").read_text()
    assert f"cannot listen on 127.0.0.1 port {port}" in said
    assert "Traceback" not in said
