"""Networks on OpenVINO, which fuses and lays out a convolution network's steps for the processor it finds.

Its package for usage statistics (openvino-telemetry) is not installed with ours, and nothing here needs it.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import openvino as ov
import torch
from torch import nn
from torch.nn import functional

from msklabel.errors import UserError
from msklabel.networks import bottleneck_of, pooled_features

logger = logging.getLogger(__name__)
_POOLED = 16  # voxels along an axis that are averaged first, at most
_BLOCK_VOXELS = 8  # of a kernel along an axis, at least, that is worth a product of matrices
_SHRINK = 2.0**-4  # squares of what lies 4000 from its mean stay within the range of f16
_CAPABILITIES = {"f32": "FP32", "f16": "FP16", "bf16": "BF16"}
_INSTANCE_NORMS = (nn.InstanceNorm2d, nn.InstanceNorm3d)


class PooledInstanceNorm(nn.Module):
    """Instance norm whose means are taken in two steps, of small blocks and of these.

    OpenVINO adds up all voxels of a channel one after the other, which for millions of them is slow and inexact.
    """

    def __init__(self, norm: nn.InstanceNorm2d | nn.InstanceNorm3d) -> None:
        super().__init__()
        self.eps = norm.eps
        self.weight = norm.weight
        self.bias = norm.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, *space), each channel of each window to mean 0 and deviation 1, then scaled and shifted."""
        off = x - _mean(x)
        variance = _mean((off * _SHRINK) ** 2) / _SHRINK**2
        along_channels = (1, -1, *[1] * (x.ndim - 2))
        # Beyond the range of half precision the scores are to be no numbers, so that it shows.
        factor = torch.where(variance < torch.inf, torch.rsqrt(variance + self.eps), torch.nan)
        if self.weight is None:
            return off * factor
        return off * (factor * self.weight.view(along_channels)) + self.bias.view(along_channels)


def _mean(x: torch.Tensor) -> torch.Tensor:
    """Means over space, (B, C, 1, …)."""
    pool = functional.avg_pool2d if x.ndim == 4 else functional.avg_pool3d
    block = [max(size for size in range(1, _POOLED + 1) if n % size == 0) for n in x.shape[2:]]
    return pool(x, block, block).mean(dim=list(range(2, x.ndim)), keepdim=True)


class BlockConvolution(nn.Module):
    """Convolution of blocks side by side, as one product of matrices.

    OpenVINO's own is slow where there are few channels, however large the blocks.
    """

    def __init__(self, convolution: nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        self.block = convolution.kernel_size
        self.weight = nn.Parameter(convolution.weight.flatten(1))
        self.bias = convolution.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, *space) to (B, features, *blocks)."""
        blocks = [n // size for n, size in zip(x.shape[2:], self.block, strict=True)]
        apart = x.unflatten(2, (blocks[0], self.block[0]))
        for axis in range(1, len(blocks)):
            apart = apart.unflatten(2 * axis + 2, (blocks[axis], self.block[axis]))
        places, within = range(2, apart.ndim, 2), range(3, apart.ndim, 2)
        columns = apart.permute(0, *places, 1, *within).flatten(len(blocks) + 1)
        return functional.linear(columns, self.weight, self.bias).movedim(-1, 1)


def _of_blocks(module: nn.Module) -> bool:
    """Whether a module is a convolution of large blocks, side by side and without padding."""
    return (
        isinstance(module, nn.Conv2d | nn.Conv3d)
        and module.kernel_size == module.stride
        and module.kernel_size[0] >= _BLOCK_VOXELS
        and not any(module.padding)
        and not any(step > 1 for step in module.dilation)
        and module.groups == 1
    )


class _Converted(nn.Module):
    """A network as it is brought to OpenVINO: norms and convolutions that suit it, and its deepest features, too."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        for name, module in list(self.network.named_modules(remove_duplicate=False)):
            if isinstance(module, _INSTANCE_NORMS) and not module.track_running_stats:
                self.network.set_submodule(name, PooledInstanceNorm(module))
            elif _of_blocks(module):
                self.network.set_submodule(name, BlockConvolution(module))
        self._seen: list[torch.Tensor] = []
        bottleneck_of(self.network).register_forward_hook(lambda module, given, output: self._seen.append(output))

    def forward(self, window: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Class scores (B, classes, *space) and features (B, F)."""
        scores = self.network(window)
        return scores, pooled_features(self._seen.pop())


def convert(network: nn.Module, window: torch.Tensor) -> ov.Model:
    """Bring a network of the registry to OpenVINO, for single windows of one shape."""
    converted = _Converted(network).cpu().eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(converted, (window,))
        model = ov.convert_model(exported, input=[list(window.shape)])
    model.reshape(list(window.shape))
    return model


def save(model: ov.Model, file: Path) -> None:
    """Keep a converted network, in full precision; ``file`` ends in .xml, its weights lie beside it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    ov.save_model(model, file, compress_to_fp16=False)


def compile_model(model: ov.Model | Path, precision: str = "f32") -> OpenVinoForward:
    """Make a converted network ready to run, on as many threads as PyTorch would take.

    Args:
        model: Converted, or the file where it is kept.
        precision: f32, or f16 or bf16 for processors with units for them; sums stay in single precision.

    Raises:
        UserError: If the processor has no units for the precision, and would only imitate it.
    """
    core = ov.Core()
    if _CAPABILITIES[precision] not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise UserError(f"this machine's processor does not compute in {precision}; use auto, or another backend")
    model = core.read_model(model) if isinstance(model, Path) else model.clone()
    steps = ov.preprocess.PrePostProcessor(model)
    steps.output(0).model().set_layout(ov.Layout("NC..."))
    steps.output(0).tensor().set_layout(ov.Layout("N...C"))  # as they lie inside: saves a pass over them
    return OpenVinoForward(steps.build(), precision)


class OpenVinoForward:
    """Runs windows one after the other: more at once would take more memory and no less time.

    A window that is beyond the range of half precision runs in single precision.

    Attributes:
        features: Called for each window with the mean of the network's deepest features, (F,), where it is set.
    """

    windows_at_once = 1

    def __init__(self, model: ov.Model, precision: str) -> None:
        self.features: Callable[[torch.Tensor], None] | None = None
        self._model = model
        self._precision = precision
        self._request = self._compiled(precision).create_infer_request()
        self._shape = tuple(model.output(0).shape)[1:]

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Class scores (B, classes, *space) of windows (B, C, *space)."""
        scores = torch.empty((len(windows), *self._shape))  # (B, *space, classes)
        for given, found in zip(windows.contiguous().split(1), scores.split(1), strict=True):
            self._run(self._request, given, found)
            if self._precision != "f32" and not found.sum().isfinite():
                logger.warning("a window is beyond the range of %s and runs in f32", self._precision)
                self._run(self._precise, given, found)
        return scores.movedim(-1, 1)

    def _run(self, request: ov.InferRequest, given: torch.Tensor, found: torch.Tensor) -> None:
        request.set_input_tensor(ov.Tensor(given.numpy(), shared_memory=True))
        request.set_output_tensor(0, ov.Tensor(found.numpy(), shared_memory=True))
        request.infer()
        if self.features:
            self.features(torch.from_numpy(request.get_output_tensor(1).data[0].copy()))

    @cached_property
    def _precise(self) -> ov.InferRequest:
        return self._compiled("f32").create_infer_request()

    def _compiled(self, precision: str) -> ov.CompiledModel:
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(torch.get_num_threads()),
            "INFERENCE_PRECISION_HINT": precision,
        }
        return ov.Core().compile_model(self._model, "CPU", settings)
