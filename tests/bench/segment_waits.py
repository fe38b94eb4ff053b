"""How long *Segment* takes on a served scan that was predicted ahead, and on others beside a running training."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import requests
from bench_latency import SYSTEM

_PATIENCE_S = 300.0
_AHEAD = "tmp/*/msklabel-ahead-*/*/*"  # files in the state folder
_PAUSE_S = 5.0  # the server looks every 2 s for what can be made ready
_EPOCHS = 100_000  # the training is ended before


def prefetched(port: int, state: Path, count: int) -> dict[str, Any]:
    """Ask for scans, wait until each is predicted ahead, press *Segment*.

    Args:
        port: Of the server, which must be idle.
        state: Its state folder.
        count: How many scans.

    Returns:
        ``p50_ms`` and ``max_ms`` to the last byte of the answer, and ``ahead``, how many had been predicted.
    """
    taken, ahead = [], 0
    for number in range(count):
        asked = requests.post(f"{_url(port)}/activelearning/first", json={"client_id": f"waits{number}"}, timeout=60)
        image = asked.json()["id"]
        _until(lambda many=number + 1: len(list(state.glob(_AHEAD))) >= many, "a prediction ahead")
        _settled(state)
        seconds, answer = segment(port, image)
        taken.append(1000 * seconds)
        ahead += b'"ahead": true' in answer
    return {"n": count, "ahead": ahead, "p50_ms": float(np.median(taken)), "max_ms": max(taken)}


def beside_training(port: int, state: Path, images: list[str], label: bytes) -> dict[str, Any]:
    """Segment scans that nobody was given, on an idle server and while it trains.

    Idle times are taken once what runs the network has settled: a small network that turns out to be slow is tried on
    other backends while nobody waits, and would be quicker in the second half than in the first.

    Args:
        port: Of the server.
        state: Its state folder.
        images: Four to label and train on, the others to segment.
        label: Fits each of them.

    Returns:
        Median seconds ``idle_s`` and ``training_s``, their ``ratio``, ``epochs`` trained while segmenting, and
        ``backends``, what ran the network when idle and beside the training.
    """
    labelled, asked = images[:4], images[4:]
    _backend_settled(port, state, asked[0])
    idle = [segment(port, image) for image in asked]
    for number, image in enumerate(labelled):
        fields = {"params": json.dumps({"client_id": f"trains{number}", "model": SYSTEM})}
        files = {"label": ("label.nii.gz", label, "application/octet-stream")}
        requests.put(
            f"{_url(port)}/datastore/label?image={image}", data=fields, files=files, timeout=60
        ).raise_for_status()
    progress = state / "models" / SYSTEM / "training.json"

    def epochs() -> int:
        return int(json.loads(progress.read_text())["epoch"]) if progress.exists() else 0

    requests.post(f"{_url(port)}/train/{SYSTEM}", json={"max_epochs": _EPOCHS}, timeout=60).raise_for_status()
    try:
        _until(lambda: epochs() > 0, "the first epoch")
        before = epochs()
        training = [segment(port, image) for image in asked]
        trained = epochs() - before
    finally:
        requests.delete(f"{_url(port)}/train/", timeout=60)
    idle_s, training_s = (float(np.median([seconds for seconds, _ in taken])) for taken in (idle, training))
    return {
        "idle_s": idle_s,
        "training_s": training_s,
        "ratio": training_s / idle_s,
        "epochs": trained,
        "backends": " and ".join(
            ", ".join(sorted({_backend(answer) for _, answer in taken})) for taken in (idle, training)
        ),
    }


def segment(port: int, image: str) -> tuple[float, bytes]:
    """Seconds for an inference as 3D Slicer asks for it, and the answer."""
    params = json.dumps({"result_extension": ".nrrd", "result_dtype": "uint8"})
    started = time.perf_counter()
    answer = requests.post(f"{_url(port)}/infer/{SYSTEM}?image={image}", files={"params": (None, params)}, timeout=600)
    seconds = time.perf_counter() - started
    answer.raise_for_status()
    return seconds, answer.content


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _backend(answer: bytes) -> str:
    """What ran the network of an answer to an inference."""
    found = re.search(rb'"backend": *"([^"]*)"', answer)
    return found[1].decode() if found else ""


def _backend_settled(port: int, state: Path, image: str) -> None:
    """Until two segmentations some seconds apart, with no trial of backends due when they began, ran on the same one.

    PyTorch answers while a trial runs, and until what won is loaded. Where no trial can be made, as for want of memory,
    this ends after its patience.
    """
    end, known = time.monotonic() + _PATIENCE_S, ""
    while time.monotonic() < end:
        due = _is_trial_due(state)
        now = _backend(segment(port, image)[1])
        if now == known and not due:
            return
        known = "" if due else now
        time.sleep(_PAUSE_S)


def _is_trial_due(state: Path) -> bool:
    """Whether a network was noted as slow, and what runs it fastest is not known yet."""
    try:
        known = json.loads((state / "backends.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    return not all("backend" in found for found in known.values())


def _settled(state: Path) -> None:
    """Until no further prediction is made for a while: one that runs would have to end first."""
    known = -1
    while known != (known := len(list(state.glob(_AHEAD)))):
        time.sleep(3)


def _until(there: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not there():
        if time.monotonic() > end:
            raise SystemExit(f"{what} did not come in {_PATIENCE_S:.0f} s")
        time.sleep(0.2)
