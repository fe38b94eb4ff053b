"""A real Orthanc with its DICOMweb plugin, on free ports, with a folder of its own."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
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


@contextlib.contextmanager
def orthanc(folder: Path, user: str = "pacs", password: str = "secret") -> Iterator[str]:
    """Start Orthanc; gives the address of its REST interface, DICOMweb is below ``/dicom-web``."""
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
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([str(PROGRAM), str(folder / "orthanc.json")], stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"{address}/system", auth=(user, password), timeout=5).ok:
                    break
            assert process.poll() is None, (folder / "orthanc.log").read_text()
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(20)


def upload(address: str, *files: Path, auth: tuple[str, str] = ("pacs", "secret")) -> None:
    """Put DICOM files into Orthanc."""
    for file in files:
        answer = requests.post(f"{address}/instances", data=file.read_bytes(), auth=auth, timeout=30)
        assert answer.ok, answer.text
