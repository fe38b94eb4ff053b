"""A server that is killed at random instants while annotators submit, and starts again.

Each life of the server is a process of its own that builds the app, opens the store and serves the real routes; the
socket outlives them, so that a client waits for the next life where it would be refused.
"""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import nibabel as nib
import numpy as np
import requests
from served import start_on

SYSTEM = "hip_tissue_ct"
SHAPE = (12, 10, 4)


@dataclass
class Outcome:
    """What a run saw.

    Attributes:
        kills: How often the server was killed.
        acknowledged: Version id and voxels of each label that the server said it had.
        refused: Answers that were no success, which there should be none of.
    """

    kills: int = 0
    acknowledged: list[tuple[int, bytes]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


class CrashSite:
    """One studies folder, and a server on it that lives and dies.

    Args:
        folder: Where everything is.
        images: Number of scans.
    """

    def __init__(self, folder: Path, images: int = 4) -> None:
        self.studies = folder / "images"
        self.studies.mkdir(parents=True)
        self.affine = np.diag([2.0, 2.0, 5.0, 1.0])
        for number in range(images):
            scan = np.random.default_rng(number).integers(-100, 300, SHAPE).astype(np.int16)
            nib.save(nib.Nifti1Image(scan, self.affine), self.studies / f"hip_{number}.nii")
        self.images = [f"hip_{number}" for number in range(images)]
        self.conf = {"models": SYSTEM, "profile": "demo"}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._said = folder / "said"

    @property
    def state(self) -> Path:
        """The server's state folder."""
        return self.studies / ".msklabel"

    def start(self) -> BaseProcess:
        """Let a server live; its process."""
        return start_on(self._said, str(self.studies), self.conf, self._listener)

    def answers(self, seconds: float = 120.0) -> bool:
        """Whether the living server answers."""
        return requests.get(f"{self._url}/info/", timeout=seconds).status_code == 200

    def run(self, kills: int, annotators: int, seed: int) -> Outcome:
        """Kill the server again and again while annotators submit, each label another.

        Every second time at an instant of its start, else after some labels were acknowledged.
        """
        chance = random.Random(seed)
        outcome = Outcome()
        done = threading.Event()
        threads = [
            threading.Thread(target=self._submit, args=(outcome, done, seed * 1000 + number))
            for number in range(annotators)
        ]
        for thread in threads:
            thread.start()
        try:
            for number in range(kills):
                server = self.start()
                if number % 2:
                    self._wait_for_more(outcome, chance.randint(1, 2 * annotators))
                    time.sleep(chance.uniform(0, 0.1))
                else:
                    time.sleep(chance.uniform(0, 1.5))
                server.kill()
                server.join()
                outcome.kills += 1
        finally:
            done.set()
            last = self.start()  # so that those who wait for an answer get one
            for thread in threads:
                thread.join(180)
        assert self.answers()
        last.kill()
        last.join()
        return outcome

    def stop(self) -> None:
        """End everything."""
        self._listener.close()

    def _wait_for_more(self, outcome: Outcome, labels: int) -> None:
        wanted, end = len(outcome.acknowledged) + labels, time.monotonic() + 180
        while len(outcome.acknowledged) < wanted:
            if time.monotonic() > end:
                raise AssertionError("the server does not come back")
            time.sleep(0.005)

    def _submit(self, outcome: Outcome, done: threading.Event, seed: int) -> None:
        chance = np.random.default_rng(seed)
        while not done.is_set():
            array = chance.integers(0, 8, SHAPE).astype(np.uint8)
            label = nib.Nifti1Image(array, self.affine).to_bytes()
            files = {
                "params": (None, json.dumps({"model": SYSTEM, "client_id": f"ann{seed}"})),
                "label": ("label.nii", label),
            }
            image = self.images[int(chance.integers(len(self.images)))]
            try:
                answer = requests.put(f"{self._url}/datastore/label?image={image}", files=files, timeout=120)
            except requests.RequestException:
                continue  # killed meanwhile: nobody was told that the label is there
            if answer.status_code == 200:
                outcome.acknowledged.append((answer.json()["version"], array.tobytes()))
            else:
                outcome.refused.append(f"{answer.status_code} {answer.text[:200]}")
