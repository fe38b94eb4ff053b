"""Try backends on a network: how fast each is, and whether its labels are those of PyTorch as it is."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from msklabel.networks import Weights, loaded_network
from msklabel.predict.backends import BACKENDS, Forward, Site
from msklabel.system import System

logger = logging.getLogger(__name__)
_LEAST_EQUAL = 0.999  # share of voxels whose label is that of PyTorch as it is
_ADVANTAGE = 0.9  # share of the time so far that another backend must come below


def try_backends(
    system: System, network: nn.Module, device: torch.device, names: Sequence[str], kept: Path | None = None
) -> dict[str, Any]:
    """Time backends on one window.

    Args:
        system: The system.
        network: Its network with weights.
        device: Where.
        names: Backends beside PyTorch as it is.
        kept: Folder to keep the converted network in, if OpenVINO is among them and labels alike.

    Returns:
        ``backend``, the fastest whose labels agree, and ``seconds`` of each that could run.
    """
    window = torch.zeros(1, len(system.channels), *system.patch_voxels[: system.dimensions])
    site = Site(device, window)
    window = torch.rand(window.shape, generator=torch.Generator().manual_seed(0)).to(device)
    plain = BACKENDS["eager"](network, site)
    seconds, expected = _timed(plain, window)
    found: dict[str, Any] = {"backend": "eager", "seconds": {"eager": seconds}}
    for name in names:
        try:
            forward = _built(name, network, site, kept)
            taken, scores = _timed(forward, window)
        except (RuntimeError, ImportError, ValueError) as error:
            logger.warning("backend %s cannot run the network of %s: %s", name, system.name, error)
            continue
        equal = float((scores.argmax(1) == expected.argmax(1)).float().mean())
        if equal < _LEAST_EQUAL:
            logger.warning("backend %s gives %.2f %% of voxels another label; not used", name, 100 * (1 - equal))
            continue
        found["seconds"][name] = taken
        if taken < _ADVANTAGE * found["seconds"][found["backend"]]:
            found["backend"] = name
    return found


def run_apart(system: System, weights: Weights, names: Sequence[str], kept: Path) -> dict[str, Any]:
    """The same on this machine's processor, in a process of its own; one that breaks leaves PyTorch as it is.

    Args:
        system: The system.
        weights: Of its network.
        names: Backends to try.
        kept: Folder that holds the converted network afterwards, if that is the fastest; its parent is there.
    """
    with tempfile.TemporaryDirectory(prefix=".trial-", dir=kept.parent) as folder:
        save_file(weights, Path(folder) / "weights.safetensors")
        request = {
            "system": system.model_dump(mode="json", exclude_unset=True),
            "names": list(names),
            "threads": torch.get_num_threads(),
        }
        command = [sys.executable, "-m", __name__, folder]
        done = subprocess.run(command, input=json.dumps(request), stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            logger.warning("backends could not be tried: the trial ended with %d", done.returncode)
            return {"backend": "eager", "seconds": {}}
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        made = Path(folder) / "converted"
        if found["backend"] == "openvino":
            shutil.rmtree(kept, ignore_errors=True)
            made.rename(kept)
    return found


def converted_file(kept: Path) -> Path:
    """The converted network in the folder where it is kept."""
    return kept / "network.xml"


def main() -> None:
    """One trial: the request comes as JSON, the outcome goes out as JSON."""
    folder, request = Path(sys.argv[1]), json.load(sys.stdin)
    torch.set_num_threads(request["threads"])
    system = System.model_validate(request["system"])
    network = loaded_network(system, load_file(folder / "weights.safetensors"))
    print(json.dumps(try_backends(system, network, torch.device("cpu"), request["names"], folder / "converted")))


def _built(name: str, network: nn.Module, site: Site, kept: Path | None) -> Forward:
    if name != "openvino" or kept is None:
        return BACKENDS[name](network, site)
    from msklabel.predict.on_openvino import compile_model, convert, save

    save(convert(network, site.window), converted_file(kept))
    return compile_model(converted_file(kept))


def _timed(forward: Forward, window: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Seconds for a window, after a first one, and its scores."""
    with torch.inference_mode():
        scores = forward(window)
        _wait_for(window.device)
        started = time.perf_counter()
        forward(window)
        _wait_for(window.device)
    return round(time.perf_counter() - started, 4), scores


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
