"""Ways to run a network, all alike from outside: windows in, class scores out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

# Maps windows (B, C, *space) on its device to class scores (B, classes, *space) there.
Forward = Callable[[torch.Tensor], torch.Tensor]


def eager(network: nn.Module, device: torch.device) -> Forward:
    """PyTorch as it is, in half precision where a GPU has it."""
    network = network.to(device).eval()

    def forward(windows: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            scores: torch.Tensor = network(windows)
        return scores

    return forward
