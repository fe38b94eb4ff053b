"""Train one network on several GPUs of a machine: a process for each, every batch shared out among them.

The batch stays that of the recipe, so that the result is that of one GPU but for rounding, and for batch norm, which
sees its own share only: its statistics are averaged after each epoch. A recipe with batches of one crop trains on one
GPU. All take each step together, and what one process may find in another way than the others, the first decides.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import distributed, multiprocessing
from torch.multiprocessing.spawn import ProcessContext, ProcessException, start_processes

from msklabel.errors import UserError
from msklabel.learn.cases import Case, PreparedCase, prepare_case
from msklabel.learn.group import DistributedGroup
from msklabel.learn.prepared_cache import read_prepared, write_prepared
from msklabel.learn.trainer import Report, Stopped, Trainer
from msklabel.networks import Weights
from msklabel.system import System

logger = logging.getLogger(__name__)
_LOOK_S = 0.2
_GRACE_S = 2.0  # for what is left after one has failed


@dataclass(frozen=True)
class _Job:
    """All that a process needs; cases are files of prepared ones."""

    system: System
    folder: Path
    epochs: int
    seed: int
    devices: tuple[str, ...]
    port: int
    training: tuple[Path, ...]
    validation: tuple[Path, ...]
    older: tuple[Path, ...]
    initial: Path | None


def gpus_for(system: System, device: str | None) -> tuple[str, ...]:
    """The GPUs that a training uses: all there are, at most one for each crop of a batch; one where it was named."""
    if device is not None and device != "cuda":
        return (device,)
    return tuple(f"cuda:{i}" for i in range(min(torch.cuda.device_count(), system.train.batch)))


def train_together(
    system: System,
    folder: Path,
    devices: Sequence[str],
    cases: tuple[Sequence[Case], Sequence[Case], Sequence[Case]],
    initial: Weights | None,
    epochs: int,
    seed: int,
    report: Callable[[Report], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    prepare: Callable[[System, Case], PreparedCase] = prepare_case,
) -> tuple[Weights, dict[str, Any]]:
    """Train as :class:`Trainer` does, with a process for each device.

    Args:
        system: The system.
        folder: Where the checkpoint lies.
        devices: ``cuda:0`` and so on, or ``cpu`` several times.
        cases: To train on, to validate with, to replay.
        initial: Weights to start from.
        epochs: Of the recipe.
        seed: Of weights, order and augmentation.
        report: Called after each epoch.
        should_stop: Asked all the time.
        prepare: Brings cases to the working grid.

    Returns:
        Weights, and the trainer's ``seconds`` and ``crops``.

    Raises:
        Stopped: If ``should_stop`` said so.
        UserError: As the trainer does, or as soon as one of the processes fails; the others would wait for it.
    """
    shared = folder / "shared"
    shared.mkdir(parents=True, exist_ok=True)
    training, validation, older = (
        tuple(_share(shared / f"{kind}{number}", prepare(system, case)) for number, case in enumerate(group))
        for kind, group in zip(("training", "validation", "older"), cases, strict=True)
    )
    if initial is not None:
        save_file(initial, shared / "initial")
    start = shared / "initial" if initial is not None else None
    job = _Job(system, folder, epochs, seed, tuple(devices), _free_port(), training, validation, older, start)
    context = multiprocessing.get_context("spawn")
    said, stop = context.Queue(), context.Event()
    processes = start_processes(_work, (job, said, stop), nprocs=len(devices), join=False, start_method="spawn")
    answer: Any = None
    try:
        while answer is None:
            if should_stop():
                stop.set()
            try:
                word = said.get(timeout=_LOOK_S)
            except Empty:
                _require_alive(processes, job)
                continue
            if isinstance(word, Report):
                report(word)
            else:
                answer = word
        for process in processes.processes if "error" not in answer else ():
            process.join(30)
    finally:
        for process in processes.processes:
            if process.is_alive():
                process.kill()
    if "stopped" in answer:
        raise Stopped
    if "error" in answer:
        raise UserError(answer["error"])
    return load_file(shared / "result"), answer


def _require_alive(processes: ProcessContext, job: _Job) -> None:
    """End all processes once one has failed: the others would wait for it until their time is over.

    Raises:
        UserError: If one has failed, or all have ended without a word.
    """
    try:
        ended = processes.join(timeout=0, grace_period=_GRACE_S)
    except ProcessException as error:
        logger.error("%s: %s", job.system.name, error)
        where, why = job.devices[error.error_index], str(error).strip().splitlines()[-1]
        raise UserError(f"{job.system.name}: the training process on {where} failed: {why}") from None
    if ended:
        raise UserError(f"{job.system.name}: the training processes ended without a word")


def _work(rank: int, job: _Job, said: Any, stop: Any) -> None:
    """One process."""
    device = torch.device(job.devices[rank])
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.set_device(device)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(job.port))
    distributed.init_process_group("nccl" if cuda else "gloo", rank=rank, world_size=len(job.devices))
    tell = said.put if rank == 0 else (lambda _: None)
    initial = load_file(job.initial) if job.initial else None
    trainer = Trainer(job.system, job.folder, initial, device, job.epochs, job.seed, _from_file, DistributedGroup())
    groups = [[Case(str(file), "", _nothing) for file in files] for files in (job.training, job.validation, job.older)]
    try:
        weights = trainer(groups[0], groups[1], tell, stop.is_set, groups[2])
        if rank == 0:
            save_file(weights, job.folder / "shared" / "result")
        tell({"seconds": trainer.state.seconds, "crops": trainer.state.crops * len(job.devices)})
    except Stopped:
        tell({"stopped": True})
    except UserError as error:
        said.put({"error": str(error)})
    finally:
        distributed.destroy_process_group()


def _share(file: Path, case: PreparedCase) -> Path:
    write_prepared(file, case)
    return file


def _from_file(system: System, case: Case) -> PreparedCase:
    return read_prepared(Path(case.id), None)


def _nothing() -> Any:
    raise AssertionError("prepared already")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
