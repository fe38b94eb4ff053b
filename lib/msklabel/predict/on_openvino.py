"""Networks on OpenVINO, which fuses and lays out a convolution network's steps for the processor it finds.

Its package for usage statistics (openvino-telemetry) is not installed with ours, and nothing here needs it.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import openvino as ov
import torch
from torch import nn

from msklabel.predict.backends import Forward

logger = logging.getLogger(__name__)


def convert(network: nn.Module, window: torch.Tensor) -> ov.Model:
    """Bring a network to OpenVINO, for single windows of one shape."""
    network = network.cpu().eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(network, (window,))
        model = ov.convert_model(exported, input=[list(window.shape)])
    model.reshape(list(window.shape))
    return model


def save(model: ov.Model, file: Path) -> None:
    """Keep a converted network, in full precision; ``file`` ends in .xml, its weights lie beside it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    ov.save_model(model, file, compress_to_fp16=False)


def compile_model(model: ov.Model | Path) -> Forward:
    """Make a converted network ready to run, on as many threads as PyTorch would take.

    Args:
        model: Converted, or the file where it is kept.
    """
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(torch.get_num_threads()),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    core = ov.Core()
    model = core.read_model(model) if isinstance(model, Path) else model
    steps = ov.preprocess.PrePostProcessor(model)
    steps.output().model().set_layout(ov.Layout("NC..."))
    steps.output().tensor().set_layout(ov.Layout("N...C"))  # as they lie inside: saves a pass over them
    return _OpenVino(core.compile_model(steps.build(), "CPU", settings))


class _OpenVino:
    """Runs windows one after the other: more at once would take more memory and no less time."""

    windows_at_once = 1

    def __init__(self, compiled: ov.CompiledModel) -> None:
        self._request = compiled.create_infer_request()
        self._shape = tuple(compiled.output(0).shape)[1:]

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Class scores (B, classes, *space) of windows (B, C, *space)."""
        scores = torch.empty((len(windows), *self._shape))  # (B, *space, classes)
        for given, found in zip(windows.contiguous().split(1), scores.split(1), strict=True):
            self._request.set_input_tensor(ov.Tensor(given.numpy(), shared_memory=True))
            self._request.set_output_tensor(ov.Tensor(found.numpy(), shared_memory=True))
            self._request.infer()
        return scores.movedim(-1, 1)
