"""A PACS that goes down, stands still, or answers half: one sentence, nothing half-kept, and all is caught up later."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
import requests
from dicom_samples import series
from hospital import Hospital, hospital, marks, pixels
from live import SYSTEM, wait_for
from orthanc import needs_orthanc

from msklabel.errors import Unreachable
from msklabel.imaging.dicom import series_files
from msklabel.imaging.read import read_scan
from msklabel.store.pacs import Pacs

pytestmark = [needs_orthanc, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hospital, Path]]:
    """Our server, the PACS, and the folder of the series."""
    folder = tmp_path_factory.mktemp("failing")
    for name in ("cut", "kept", "missed"):
        series(folder / "series" / name)
    with hospital(folder, sorted((folder / "series").glob("*/*.dcm")), (SYSTEM,)) as running:
        yield running, folder / "series"


def uid_of(folder: Path) -> str:
    return str(pydicom.dcmread(next(folder.glob("*.dcm")), stop_before_pixels=True).SeriesInstanceUID)


def stored_file(running: Hospital, image: Path) -> Path:
    """Where Orthanc keeps an image."""
    content = image.read_bytes()
    kept = running.state.parent / "orthanc" / "db"
    return next(file for file in kept.rglob("*") if file.is_file() and file.read_bytes() == content)


def label_of(running: Hospital, uid: str) -> requests.Response:
    return running.ours.ask("GET", f"/msk/viewer/label?image={uid}&system={SYSTEM}")


@contextlib.contextmanager
def cut_after(address: str, most_bytes: int) -> Iterator[str]:
    """A way to a server that closes after so many bytes of an answer with images, not of a listing; its address."""
    port = int(address.rsplit(":", 1)[1])
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def pass_on() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client, socket.create_connection(("127.0.0.1", port)) as server:
                    asked = client.recv(65536)
                    server.sendall(asked.replace(b"Connection: keep-alive", b"Connection: close"))
                    left = sys.maxsize if b"/instances" in asked.split(b"\r\n", 1)[0] else most_bytes
                    while left > 0 and (part := server.recv(min(left, 4096))):
                        client.sendall(part)
                        left -= len(part)

        threading.Thread(target=pass_on, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/dicom-web"
        listener.shutdown(socket.SHUT_RDWR)


def test_an_image_that_the_pacs_holds_half_is_fetched_once_it_is_whole(site: tuple[Hospital, Path]) -> None:
    running, folder = site
    uid = uid_of(folder / "cut")
    file = stored_file(running, folder / "cut" / "0003.dcm")
    whole = file.read_bytes()
    with running.orthanc.down():  # it has the image in its memory, too
        file.write_bytes(whole[:-300])
    answer = label_of(running, uid)
    assert answer.status_code in (502, 504), answer.text
    assert "the PACS" in answer.json()["detail"]
    assert answer.json()["detail"] in running.log()
    assert not list(running.state.rglob(uid))
    with running.orthanc.down():
        file.write_bytes(whole)
    assert label_of(running, uid).status_code == 200


@pytest.mark.parametrize("most_bytes", [60, 1500, 6000])
def test_an_answer_that_breaks_off_leaves_nothing(site: tuple[Hospital, Path], tmp_path: Path, most_bytes: int) -> None:
    running, folder = site
    row = next(row for row in running.pacs.series(["CT"]) if row.uid == uid_of(folder / "kept"))
    with cut_after(running.orthanc.address, most_bytes) as address:
        broken = Pacs(address, "pacs", "secret", timeouts_s=(2, 5))
        assert broken.instances(row.study, row.uid) == running.pacs.instances(row.study, row.uid)
        with pytest.raises(Unreachable) as refused:
            broken.fetch(row.study, row.uid, tmp_path / "ct")
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_pacs_that_stands_still_is_given_up(site: tuple[Hospital, Path], tmp_path: Path) -> None:
    running, folder = site
    row = next(row for row in running.pacs.series(["CT"]) if row.uid == uid_of(folder / "kept"))
    slow = Pacs(running.pacs.url, "pacs", "secret", timeouts_s=(1, 0.5))
    os.kill(running.orthanc.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(Unreachable, match="in time") as refused:
            slow.fetch(row.study, row.uid, tmp_path / "ct")
    finally:
        os.kill(running.orthanc.process.pid, signal.SIGCONT)
    assert refused.value.status == 504
    slow.fetch(row.study, row.uid, tmp_path / "ct")
    np.testing.assert_array_equal(read_scan(tmp_path / "ct").array, read_scan(folder / "kept").array)


def test_work_goes_on_while_the_pacs_is_down_and_is_caught_up_later(site: tuple[Hospital, Path]) -> None:
    running, folder = site
    kept, missed = uid_of(folder / "kept"), uid_of(folder / "missed")
    drawn = marks(pixels_shape(running, kept))
    with running.orthanc.down():
        listed = running.ours.ask("GET", "/datastore/?output=all").json()["objects"]
        assert {kept, missed} <= set(listed)
        answer = label_of(running, missed)
        assert answer.status_code == 502
        assert "cannot be reached" in answer.json()["detail"]
        assert answer.json()["detail"] in running.log()
        assert running.ours.ask("GET", "/dicom-web/studies").json()["detail"] == "the PACS cannot be reached"
        running.submit(kept, SYSTEM, drawn)
        np.testing.assert_array_equal(pixels(running.shown(kept, SYSTEM)), drawn)
        wait_for(lambda: "segmentations are exchanged later: the PACS at" in running.log(), 30)
    assert label_of(running, missed).status_code == 200
    stored = running.segmentation(kept)
    assert len(stored.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == len(series_files(folder / "kept"))


def pixels_shape(running: Hospital, uid: str) -> tuple[int, int, int]:
    shown = running.shown(uid, SYSTEM)
    return shown["columns"], shown["rows"], len(shown["frames"])
