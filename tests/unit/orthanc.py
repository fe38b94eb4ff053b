"""A real Orthanc with its DICOMweb plugin, on free ports, with a folder of its own."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

PROGRAM = shutil.which("Orthanc")
PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
needs_orthanc = pytest.mark.skipif(
    not PROGRAM or not Path(PLUGIN).exists(),
    reason="Orthanc is not installed: apt-get install orthanc orthanc-dicomweb",
)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Orthanc:
    """A PACS that can be stopped and started again.

    Attributes:
        folder: With its settings and all that it stores.
        address: Of its REST interface, the same at each start; DICOMweb is below ``/dicom-web``.
        process: That runs.
    """

    folder: Path
    address: str
    process: subprocess.Popen[bytes]

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """Pull the plug for a while; it would wait for open connections."""
        self.process.kill()
        self.process.wait(20)
        try:
            yield
        finally:
            self.process = _started(self.folder, self.address)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


@contextlib.contextmanager
def running_orthanc(folder: Path, user: str = "pacs", password: str = "secret") -> Iterator[Orthanc]:
    """Start Orthanc."""
    folder.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "Plugins": [PLUGIN],
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {user: password},
        "DicomServerEnabled": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings), encoding="utf-8")
    address = f"http://127.0.0.1:{port}"
    pacs = Orthanc(folder, address, _started(folder, address))
    try:
        yield pacs
    finally:
        pacs.stop()


@contextlib.contextmanager
def orthanc(folder: Path) -> Iterator[str]:
    """Start Orthanc; gives its address."""
    with running_orthanc(folder) as pacs:
        yield pacs.address


def _started(folder: Path, address: str) -> subprocess.Popen[bytes]:
    """Start Orthanc and wait until it answers, whoever may ask."""
    with (folder / "orthanc.log").open("ab") as log:
        process = subprocess.Popen([str(PROGRAM), str(folder / "orthanc.json")], stdout=log, stderr=log)
    for _ in range(300):
        with contextlib.suppress(requests.ConnectionError):
            if requests.get(f"{address}/system", timeout=5).status_code in (200, 401):
                break
        assert process.poll() is None, (folder / "orthanc.log").read_text()
        time.sleep(0.1)
    return process


def upload(address: str, *files: Path, auth: tuple[str, str] = ("pacs", "secret")) -> None:
    """Put DICOM files into Orthanc."""
    for file in files:
        answer = requests.post(f"{address}/instances", data=file.read_bytes(), auth=auth, timeout=30)
        assert answer.ok, answer.text
