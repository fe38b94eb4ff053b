"""Processes that train one network together, each on its share of every batch; one process alone is a group, too."""

from __future__ import annotations

import torch
from torch import distributed, nn


class Group:
    """One process alone."""

    rank = 0
    world = 1

    def average_gradients(self, network: nn.Module, crops: int) -> None:
        """Make the gradients those of the whole batch.

        Args:
            network: Has the gradients of this process's share.
            crops: How many crops that share has.
        """

    def average_buffers(self, network: nn.Module) -> None:
        """Make what the network has counted on each share, such as a batch norm's statistics, the mean of them all."""

    def from_first(self, value: float, device: torch.device) -> float:
        """What the first process says: all do the same, at the same step."""
        return value

    def mean(self, value: float, device: torch.device) -> float:
        """Mean over the processes."""
        return value


class DistributedGroup(Group):
    """The processes of ``torch.distributed``, which is initialised already; NCCL on GPUs, gloo on CPUs."""

    def __init__(self) -> None:
        self.rank, self.world = distributed.get_rank(), distributed.get_world_size()

    def average_gradients(self, network: nn.Module, crops: int) -> None:
        """See :class:`Group`; shares may differ in size."""
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        if not gradients:
            return
        count = torch.tensor([float(crops)], device=gradients[0].device)
        distributed.all_reduce(count)
        flat = torch.cat([gradient.flatten() for gradient in gradients]) * (crops / float(count))
        distributed.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def average_buffers(self, network: nn.Module) -> None:
        """See :class:`Group`; whole numbers (counters) are the same everywhere."""
        buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
        if not buffers:
            return
        flat = torch.cat([buffer.flatten().float() for buffer in buffers])
        distributed.all_reduce(flat)
        for buffer, part in zip(buffers, (flat / self.world).split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(part.view_as(buffer))

    def from_first(self, value: float, device: torch.device) -> float:
        """See :class:`Group`."""
        told = torch.tensor([value], dtype=torch.float64, device=device)
        distributed.broadcast(told, 0)
        return float(told)

    def mean(self, value: float, device: torch.device) -> float:
        """See :class:`Group`."""
        total = torch.tensor([value], dtype=torch.float64, device=device)
        distributed.all_reduce(total)
        return float(total) / self.world
