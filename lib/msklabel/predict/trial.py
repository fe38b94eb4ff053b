"""Try backends on a network: how fast each is, and whether its labels are those of PyTorch as it is."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from msklabel.errors import UserError
from msklabel.networks import Weights, loaded_network
from msklabel.predict.backends import BACKENDS, OPENVINO_PRECISIONS, Forward, Site
from msklabel.predict.progress import report
from msklabel.system import System

logger = logging.getLogger(__name__)
_BACKEND = "backend"  # file with the name of what runs a network, beside the converted one
_TIE = 0.01  # probabilities of two classes that are nearer to each other are for rounding to decide
_MOST_OTHER = 0.001  # share of voxels that may have another label than PyTorch as it is, ties aside
_ADVANTAGE = 0.9  # share of the time so far that another backend must come below
_ADVANTAGE_IN_HALF = 0.7  # the same of one in half precision
_RUNS = 4  # that are timed, unless they are very short or very long
_SHORT_S = 0.5  # that they take together, at least: windows of milliseconds are quick only after many
_LONG_S = 2.0  # after which one run is as good as several
_LOOK_S = 0.2  # between two looks whether a trial has ended, or is to end


def try_backends(
    system: System,
    network: nn.Module,
    device: torch.device,
    names: Sequence[str],
    kept: Path | None = None,
    timed: bool = True,
) -> dict[str, Any]:
    """Find the fastest backend on one window, of noise, on which rounding shows more than on a scan.

    Args:
        system: The system.
        network: Its network with weights.
        device: Where.
        names: Backends beside PyTorch as it is, the most precise first.
        kept: Folder to keep the converted network in, if OpenVINO is among them and labels alike.
        timed: Otherwise the first one whose labels agree.

    Returns:
        ``backend``, and of each whose labels agree the ``seconds`` and the share of voxels with ``other_labels``.
    """
    window = torch.zeros(1, len(system.channels), *system.patch_voxels[: system.dimensions])
    site = Site(device, window)
    window = torch.rand(window.shape, generator=torch.Generator().manual_seed(0)).to(device)
    plain = BACKENDS["eager"](network, site)
    seconds, expected = _run(plain, window, timed)
    found: dict[str, Any] = {"backend": "eager", "seconds": {"eager": seconds}, "other_labels": {}}
    for name in names:
        try:
            forward = _built(name, network, site, kept)
            taken, scores = _run(forward, window, timed)
        except UserError as error:  # the processor lacks what it takes, which is nobody's fault
            logger.info("backend %s is not tried: %s", name, error)
            continue
        except (RuntimeError, ImportError, ValueError) as error:
            logger.warning("backend %s cannot run the network of %s: %s", name, system.name, error)
            continue
        other, certain = other_labels(expected, scores)
        if certain > _MOST_OTHER:
            logger.warning("backend %s gives %.2f %% of voxels another label; not used", name, 100 * other)
            continue
        found["seconds"][name] = taken
        found["other_labels"][name] = round(other, 6)
        if not timed:
            return {**found, "backend": name}
        in_half = OPENVINO_PRECISIONS.get(name, "f32") != "f32"
        advantage = _ADVANTAGE_IN_HALF if in_half else _ADVANTAGE
        if taken < advantage * found["seconds"][found["backend"]]:
            found["backend"] = name
            if in_half:  # another one would have to save as much again
                break
    return found


def other_labels(expected: torch.Tensor, scores: torch.Tensor) -> tuple[float, float]:
    """Shares of voxels that get another label: all, and those for which the two classes were no tie.

    Args:
        expected: Scores (B, classes, *space) of PyTorch as it is.
        scores: The same of another backend; where they are no numbers, the label is another.
    """
    probability = expected.softmax(1)
    ours, theirs = (given.argmax(1, keepdim=True) for given in (expected, scores))
    wrong = ~scores.isfinite().all(1, keepdim=True)
    other = (ours != theirs) | wrong
    lead = probability.gather(1, ours) - probability.gather(1, theirs)
    return float(other.float().mean()), float((other & ((lead > _TIE) | wrong)).float().mean())


def run_apart(system: System, weights: Weights, names: Sequence[str], kept: Path, timed: bool = True) -> dict[str, Any]:
    """The same on this machine's processor, in a process of its own; one that breaks leaves PyTorch as it is.

    Args:
        system: The system.
        weights: Of its network.
        names: Backends to try.
        kept: Folder that holds the outcome afterwards, and the converted network if it is used; its parent is there.
        timed: As of :func:`try_backends`.

    Raises:
        Exception: What whoever asked for progress raises, to end it; nothing is kept then.
    """
    before = kept_backend(kept)
    with tempfile.TemporaryDirectory(prefix=".trial-", dir=kept.parent) as folder:
        save_file(weights, Path(folder) / "weights.safetensors")
        request = {
            "system": system.model_dump(mode="json", exclude_unset=True),
            "names": list(names),
            "threads": torch.get_num_threads(),
            "timed": timed,
        }
        code, answer = _trial(Path(folder), json.dumps(request))
        if code != 0:
            logger.warning("backends could not be tried: the trial ended with %d", code)
            return {"backend": "eager", "seconds": {}}
        found: dict[str, Any] = json.loads(answer)
        made = Path(folder) / "converted"
        if found["backend"] not in OPENVINO_PRECISIONS:  # remembered, too, so that it is not tried at every start
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
        (made / _BACKEND).write_text(found["backend"], encoding="utf-8")
        # The server and a scoring may try the same version at once; what the other has made stays, as it may be read.
        if before or kept_backend(kept) is None:
            shutil.rmtree(kept, ignore_errors=True)
            with contextlib.suppress(OSError):
                made.rename(kept)
    return {**found, "backend": kept_backend(kept) or found["backend"]}


def _trial(folder: Path, request: str) -> tuple[int, str]:
    """Run :func:`main` in a session of its own, which Ctrl-C in the terminal does not reach; exit code and answer."""
    told = report()
    command = [sys.executable, "-m", __name__, str(folder)]
    with (folder / "answer").open("w+", encoding="utf-8") as answer:
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=answer, bufsize=0, start_new_session=True) as process:
            assert process.stdin
            try:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(request.encode() + b"\n")
                while process.poll() is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(_LOOK_S)
                    if told:
                        told(0, 1)
            except BaseException:
                process.kill()
                raise
        answer.seek(0)
        return process.returncode, next(reversed(answer.read().splitlines()), "")


def kept_backend(kept: Path) -> str | None:
    """What a trial chose for the network of the folder; None before one."""
    try:
        name = (kept / _BACKEND).read_text(encoding="utf-8")
    except OSError:
        return None
    return name if name in BACKENDS else None


def converted_file(kept: Path) -> Path:
    """The converted network in the folder where it is kept."""
    return kept / "network.xml"


def main() -> None:
    """One trial: the request comes as a line of JSON, the outcome goes out as another; it ends with who started it."""
    folder, request = Path(sys.argv[1]), json.loads(sys.stdin.readline())
    threading.Thread(target=_end_when_orphaned, daemon=True).start()
    torch.set_num_threads(request["threads"])
    system = System.model_validate(request["system"])
    network = loaded_network(system, load_file(folder / "weights.safetensors"))
    kept, cpu = folder / "converted", torch.device("cpu")
    print(json.dumps(try_backends(system, network, cpu, request["names"], kept, request["timed"])))


def _end_when_orphaned() -> None:
    sys.stdin.read()
    os._exit(1)


def _built(name: str, network: nn.Module, site: Site, kept: Path | None) -> Forward:
    if name not in OPENVINO_PRECISIONS or kept is None:
        return BACKENDS[name](network, site)
    from msklabel.predict.on_openvino import compile_model, convert, save

    if not converted_file(kept).exists():
        save(convert(network, site.window), converted_file(kept))
    return compile_model(converted_file(kept), OPENVINO_PRECISIONS[name])


def _run(forward: Forward, window: torch.Tensor, timed: bool) -> tuple[float | None, torch.Tensor]:
    """Seconds for a window, the best of a few after a first one, if they are asked for, and its scores."""
    with torch.inference_mode():
        scores = forward(window)
        seconds: list[float] = []
        while timed and sum(seconds) < (_LONG_S if len(seconds) < _RUNS else _SHORT_S):
            _wait_for(window.device)
            started = time.perf_counter()
            forward(window)
            _wait_for(window.device)
            seconds.append(time.perf_counter() - started)
    return round(min(seconds), 4) if seconds else None, scores


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
