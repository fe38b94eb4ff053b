"""Ways to run a network, all alike from outside: windows in, class scores out.

A new way is one function and one line in ``BACKENDS``.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from msklabel.errors import UserError

logger = logging.getLogger(__name__)
# Single precision is that on a GPU, too: by default what goes into a convolution is rounded to 11 bits there (TF32).
torch.backends.cudnn.allow_tf32 = False

# Maps windows (B, C, *space) on its device to class scores (B, classes, *space) there.
Forward = Callable[[torch.Tensor], torch.Tensor]


@runtime_checkable
class TellsFeatures(Protocol):
    """What runs a network and also tells its deepest features.

    Attributes:
        features: Called for each window with their mean over space, (F,), where it is set.
    """

    features: Callable[[torch.Tensor], None] | None

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Class scores (B, classes, *space) of windows (B, C, *space)."""


@dataclass(frozen=True)
class _Recorded:
    """A CUDA graph, and where its windows and its scores lie."""

    graph: torch.cuda.CUDAGraph
    given: torch.Tensor
    scores: torch.Tensor


@dataclass(frozen=True)
class Site:
    """What a network runs on.

    Attributes:
        device: The device.
        window: One window of zeros, (1, C, *space), as the network will get them.
    """

    device: torch.device
    window: torch.Tensor


def eager(network: nn.Module, site: Site) -> Forward:
    """PyTorch as it is, in single precision."""
    network = network.to(site.device).eval()
    return lambda windows: network(windows)


def half(network: nn.Module, site: Site) -> Forward:
    """PyTorch in half precision on a GPU, in single precision on a processor."""
    return _autocast(network.to(site.device).eval(), site.device)


def channels_last(network: nn.Module, site: Site) -> Forward:
    """The same with the channels of a voxel side by side in memory; a copy, the network stays as it is."""
    order = torch.channels_last if site.window.ndim == 4 else torch.channels_last_3d
    turned = copy.deepcopy(network).to(site.device, memory_format=order).eval()  # type: ignore[call-overload]
    forward = _autocast(turned, site.device)
    return lambda windows: forward(windows.contiguous(memory_format=order))


def compiled(network: nn.Module, site: Site) -> Forward:
    """PyTorch's own compiler; needs a C++ compiler, and minutes."""
    network = network.to(site.device).eval()
    return _autocast(torch.compile(network, dynamic=False), site.device)


def cuda_graph(network: nn.Module, site: Site) -> Forward:
    """Channels last, all kernels of a forward pass started at once; without a graph where none can be recorded."""
    forward = channels_last(network, site)
    recorded: _Recorded | None = None
    possible = True

    def replay(windows: torch.Tensor) -> torch.Tensor:
        nonlocal recorded, possible
        count = len(windows)
        if possible and (recorded is None or len(recorded.given) < count):
            recorded = None  # gives its memory back first
            try:
                recorded = _captured(forward, windows)
            except RuntimeError as error:
                logger.warning("no CUDA graph could be recorded; the network runs without one: %s", error)
                possible = False
        if recorded is None:
            return forward(windows)
        recorded.given[:count].copy_(windows)  # a last, smaller batch leaves the others as they were
        recorded.graph.replay()
        return recorded.scores[:count].clone()

    return replay


def openvino(network: nn.Module, site: Site, precision: str = "f32") -> Forward:
    """OpenVINO on the processor; in half precision where that has units for it."""
    from msklabel.predict.on_openvino import compile_model, convert

    return compile_model(convert(network, site.window), precision)


# What OpenVINO computes in; bf16 has the range of f32, but only 8 bits of it, f16 11.
OPENVINO_PRECISIONS = {"openvino": "f32", "openvino_f16": "f16", "openvino_bf16": "bf16"}
BACKENDS: dict[str, Callable[[nn.Module, Site], Forward]] = {
    "eager": eager,
    "half": half,
    "channels_last": channels_last,
    "compiled": compiled,
    "cuda_graph": cuda_graph,
    **{name: partial(openvino, precision=precision) for name, precision in OPENVINO_PRECISIONS.items()},
}
_FOR_GPU_ONLY = ("half", "cuda_graph")
_FOR_CPU_ONLY = tuple(OPENVINO_PRECISIONS)
_ONLY_WHEN_NAMED = ("compiled",)  # takes longer to make than it saves


def candidates(device: torch.device) -> list[str]:
    """Backends that a device can try by itself, the plainest and most precise first."""
    left_out = set(_ONLY_WHEN_NAMED) | set(_FOR_GPU_ONLY if device.type == "cpu" else _FOR_CPU_ONLY)
    if device.type == "cpu":  # OpenVINO lays scores out in the same way, and does more
        left_out |= {"channels_last"} if _has_openvino() else set(OPENVINO_PRECISIONS)
    return [name for name in BACKENDS if name not in left_out]


def require_backend(name: str, device: torch.device) -> None:
    """Refuse a backend that is not there.

    Raises:
        UserError: If there is no such backend, or it does not run on the device or without a missing package.
    """
    if name not in BACKENDS:
        raise UserError(f"backend {name!r} is not known; one of auto, {', '.join(BACKENDS)}")
    wrong_device = name in (_FOR_GPU_ONLY if device.type == "cpu" else _FOR_CPU_ONLY)
    if wrong_device or (name in OPENVINO_PRECISIONS and not _has_openvino()):
        raise UserError(f"backend {name!r} cannot be used on {device}; here: auto, {', '.join(candidates(device))}")


def _has_openvino() -> bool:
    return importlib.util.find_spec("openvino") is not None


def half_type(device: torch.device) -> torch.dtype:
    """The half precision that suits a GPU: bfloat16, with the range of float32, unless the GPU only emulates it."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def mixed_type(device: torch.device) -> torch.dtype | None:
    """What a training multiplies in, where the device has units for it: on a processor AMX for bfloat16; else None."""
    if device.type == "cuda":
        return half_type(device)
    return torch.bfloat16 if torch.cpu.get_capabilities().get("amx_bf16") else None


def _autocast(network: Forward, device: torch.device) -> Forward:
    half = half_type(device)

    def forward(windows: torch.Tensor) -> torch.Tensor:
        # No cache of cast weights: it would not outlive the call, and a graph must not hold it.
        with torch.autocast(device.type, half, enabled=device.type == "cuda", cache_enabled=False):
            return network(windows)

    return forward


def _captured(forward: Forward, windows: torch.Tensor) -> _Recorded:
    """A graph with the place of its windows and of its scores; warmed up on a stream of its own, as PyTorch asks."""
    given = windows.clone()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            forward(given)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Another thread may use the GPU meanwhile, for another system: only what this one does must be fit for a graph.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        scores = forward(given)
    return _Recorded(graph, given, scores)
