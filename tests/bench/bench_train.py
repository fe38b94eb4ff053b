"""Crops that a training takes in a second, ours beside MONAI Label's own loop.

    python tests/bench/bench_train.py --system thigh_ct --profile demo --scans 4 --epochs 4 --repeats 3
    python tests/bench/bench_train.py --quick

trains one system's network from fresh weights on phantoms, with ``learn/trainer.py`` and with MONAI Label's
BasicTrainTask (transforms, metric and handlers of its radiology app, CacheDataset), in turns, each run a process of its
own. Both have the same network, optimiser and size of crops, as many crops in a step and steps in an epoch, and the
same loss: the peer's is MONAI's of that name. Neither augments nor validates, and no label is left out.
Timed is from the end of an epoch's first step to the end of its last, the first epoch left out: neither reading nor
checkpoints count. Printed are medians over the runs, of the ratios too. CPU seconds hold on a busy machine, wall
seconds on an idle one. ``--device cuda`` adds the GPU's utilisation and memory.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

from bench_latency import in_a_folder

SIDES = ("stock", "ours")
_QUICK = {"system": "hip_tissue_ct", "profile": "simulation", "scans": 4, "epochs": 4, "repeats": 1, "crops": 2}
_LOOK_S = 0.2


def main() -> None:
    """Run both sides in turns, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", default="thigh_ct", help="a system with one channel (thigh_ct)")
    parser.add_argument("--profile", default="demo", help="paper, demo or another of the system's (demo)")
    parser.add_argument("--shape", type=int, nargs=3, help="voxels of a phantom (the generator's own)")
    parser.add_argument("--spacing", type=float, nargs=3, help="voxel size of a phantom, mm (the generator's own)")
    parser.add_argument("--scans", type=int, default=4, help="phantoms: steps of an epoch, at least 2 (4)")
    parser.add_argument("--crops", type=int, help="crops of a scan, which are one step (the recipe's batch)")
    parser.add_argument("--epochs", type=int, default=4, help="the first is not timed (4)")
    parser.add_argument("--threads", type=int, default=2, help="of each side (2)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side (3)")
    parser.add_argument("--quick", action="store_true", help="a smallest run, which only shows that it works")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        vars(options).update(_QUICK)
    if options.scans < 2 or options.epochs < 2:
        parser.error("--scans and --epochs must be at least 2")
    if options.worker:
        print(json.dumps(_run(options)))
        return
    in_a_folder(compare, show, options)


def compare(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Runs of both sides and what follows from them."""
    from msklabel_phantoms.write import write_phantoms

    system = _system(options)
    made = {"seed": 5, "shape": options.shape, "spacing_mm": options.spacing}
    for _ in write_phantoms(system.name, folder, count=options.scans, **made):
        pass
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    env = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    for number in range(options.repeats):
        for side in SIDES:
            own = folder / f"{side}{number}"
            command = [sys.executable, __file__, *sys.argv[1:], "--worker", side, "--folder", str(own)]
            # Large pages are our choice, of which importing our package must not let the peer profit.
            pages = {"THP_MEM_ALLOC_ENABLE": "0"} if side == "stock" else {}
            done = subprocess.run(command, stdout=subprocess.PIPE, env=env | pages, check=True)
            runs[side].append(json.loads(done.stdout.splitlines()[-1]))
            run = runs[side][-1]
            told = f"{run['crops_per_s']:.2f} crops/s, {run['peak_gib']:.2f} GiB"
            print(f"run {number + 1}, {side}: {told}", file=sys.stderr)
    pairs = list(zip(runs["ours"], runs["stock"], strict=True))
    keys = ("crops_per_s", "crops_per_cpu_s", "peak_gib")
    return {
        "system": system.name,
        "profile": system.profile,
        "network": system.network.name,
        "patch": "x".join(str(n) for n in system.patch_voxels),
        "batch": system.train.batch,
        "loss": system.train.loss,
        "device": options.device,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "threads": options.threads,
        "runs": runs,
        "ratios": {key: median(ours[key] / stock[key] for ours, stock in pairs) for key in keys},
    }


def show(figures: dict[str, Any]) -> None:
    """Print the figures."""
    from rich.console import Console
    from rich.table import Table

    title = (
        "{system}, {profile} profile: {network}, {batch} crops of {patch} a step, {loss}, {threads} threads, {device}"
    )
    table = Table("median of runs", *figures["runs"], "ours / stock", title=title.format(**figures))
    rows = {"crops_per_s": "crops a second", "crops_per_cpu_s": "crops a CPU second", "peak_gib": "peak memory (GiB)"}
    rows |= {"gpu_percent": "GPU utilisation (%)", "gpu_peak_gib": "peak GPU memory (GiB)", "loss": "last loss"}
    for key, name in rows.items():
        if all(key in run for runs in figures["runs"].values() for run in runs):
            medians = [f"{median(run[key] for run in runs):.3f}" for runs in figures["runs"].values()]
            table.add_row(name, *medians, f"{figures['ratios'][key]:.3f}" if key in figures["ratios"] else "")
    Console(width=110).print(table)
    print(figures["machine"])


class Steps:
    """Adds up what lies between the first and the last step of each epoch but the first."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0
        self.steps = self.epochs = 0
        self._marks: list[tuple[float, float]] = []

    def step(self) -> None:
        """A step is done."""
        self._marks.append((time.perf_counter(), time.process_time()))

    def epoch(self) -> None:
        """An epoch is done."""
        if self.epochs:
            (wall, cpu), (last_wall, last_cpu) = self._marks[0], self._marks[-1]
            self.wall_s, self.cpu_s = self.wall_s + last_wall - wall, self.cpu_s + last_cpu - cpu
            self.steps += len(self._marks) - 1
        self.epochs += 1
        self._marks = []


class Utilisation:
    """Looks how busy the GPU is, while the block runs."""

    def __init__(self, device: str) -> None:
        self.percents: list[float] = []
        self._on = device.startswith("cuda")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Utilisation:
        if self._on:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._on:
            self._thread.join()

    def _look(self) -> None:
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not self._stop.wait(_LOOK_S):
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            self.percents.append(float(said.split()[0]))


def _run(options: argparse.Namespace) -> dict[str, Any]:
    """One side, in this process."""
    import torch

    system, steps = _system(options), Steps()
    with Utilisation(options.device) as gpu:
        loss = (_stock if options.worker == "stock" else _ours)(options, system, steps)
    crops = steps.steps * system.train.batch
    status = Path("/proc/self/status").read_text()  # ru_maxrss would begin with what the parent had when it forked
    run = {
        "crops_per_s": crops / steps.wall_s,
        "crops_per_cpu_s": crops / steps.cpu_s,
        "steps": steps.steps,
        "peak_gib": int(status.split("VmHWM:")[1].split()[0]) / 2**20,
        "loss": loss,
    }
    if gpu.percents:
        run |= {"gpu_percent": median(gpu.percents), "gpu_peak_gib": torch.cuda.max_memory_allocated() / 2**30}
    return run


def _ours(options: argparse.Namespace, system: Any, steps: Steps) -> float:
    """Our trainer."""
    from msklabel.imaging.read import read_labels, read_scan
    from msklabel.learn.cases import Case
    from msklabel.learn.trainer import Report, Trainer

    def case(image: Path, label: Path) -> Case:
        return Case(image.name, image.name, lambda: (read_scan(image), read_labels(label).array))

    losses: list[float] = []
    begun = [0]

    def before_step() -> bool:
        if begun[0]:
            steps.step()
        begun[0] += 1
        return False

    def after_epoch(report: Report) -> None:
        begun[0] = 0
        losses.append(report.loss)
        steps.step()
        steps.epoch()

    trainer = Trainer(system, options.folder, device=options.device, epochs=options.epochs)
    trainer([case(*pair) for pair in _pairs(options)], report=after_epoch, should_stop=before_step)
    return losses[-1]


def _stock(options: argparse.Namespace, system: Any, steps: Steps) -> float:
    """MONAI Label's task, with the chain of its radiology app's segmentation trainer."""
    import torch
    from ignite.engine import Events
    from monai import transforms as mt
    from monai.losses import DiceCELoss, DiceLoss
    from monailabel.tasks.train.basic_train import BasicTrainTask

    from msklabel.learn.optimise import build_optimizer
    from msklabel.networks import build_network

    logging.disable(logging.INFO)
    both, classes, flat = ("image", "label"), system.classes, system.dimensions == 2
    spacing_mm = [wanted or -1 for wanted in system.spacing_mm]  # -1 keeps the scan's own
    dice = {"to_onehot_y": True, "softmax": True, "include_background": False, "batch": True}

    class CrossEntropy(torch.nn.CrossEntropyLoss):
        def forward(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return super().forward(scores, labels[:, 0].long())

    losses = {"dice": lambda: DiceLoss(**dice), "cross_entropy": CrossEntropy}
    losses["dice_cross_entropy"] = lambda: DiceCELoss(**dice)

    class Watch:
        def __init__(self) -> None:
            self.loss = float("nan")

        def attach(self, engine: Any) -> None:
            engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: steps.step())
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch)

        def _epoch(self, engine: Any) -> None:
            self.loss = float(engine.state.output[0]["loss"])
            steps.epoch()

    watch = Watch()

    class Peer(BasicTrainTask):
        def network(self, context: Any) -> Any:
            torch.manual_seed(0)
            return build_network(system)

        def optimizer(self, context: Any) -> Any:
            return build_optimizer(context.network.parameters(), system.train)

        def loss_function(self, context: Any) -> Any:
            return losses[system.train.loss]()

        def train_pre_transforms(self, context: Any) -> list:
            crop = {"label_key": "label", "spatial_size": system.patch_voxels, "num_samples": system.train.batch}
            return [
                mt.LoadImaged(both),
                mt.EnsureChannelFirstd(both),
                mt.Orientationd(both, axcodes=system.orientation, labels=None),
                mt.Spacingd(both, pixdim=spacing_mm, mode=("bilinear", "nearest")),
                _scaling(mt, system),
                mt.SpatialPadd(both, spatial_size=system.patch_voxels),
                mt.RandCropByPosNegLabeld(both, pos=1, neg=1, image_key="image", image_threshold=0, **crop),
                *([mt.SqueezeDimd(both, dim=-1)] if flat else []),
                mt.EnsureTyped(both, device=context.device),
                mt.SelectItemsd(both),
            ]

        def train_post_transforms(self, context: Any) -> list:
            return [
                mt.EnsureTyped("pred", device=context.device),
                mt.Activationsd("pred", softmax=True),
                mt.AsDiscreted(("pred", "label"), argmax=(True, False), to_onehot=(classes, classes)),
            ]

        def val_inferer(self, context: Any) -> Any:
            return None

        def train_handlers(self, context: Any) -> list:
            return [watch, *super().train_handlers(context)]

    class Datastore:
        def datalist(self) -> list[dict[str, str]]:
            return [{"image": str(image), "label": str(label)} for image, label in _pairs(options)]

    request = {"name": "bench", "device": options.device, "max_epochs": options.epochs, "val_split": 0.0}
    request |= {"multi_gpu": False, "pretrained": False, "dataset": "CacheDataset", "dataloader": "ThreadDataLoader"}
    request |= {"tracking": "None"}
    Peer(str(options.folder), amp=options.device != "cpu")(request, Datastore())
    return watch.loss


def _scaling(mt: Any, system: Any) -> Any:
    """The app's own normalisation, by the system's window where it has one."""
    window = system.intensity
    if window.kind == "window":
        return mt.ScaleIntensityRanged("image", window.lower, window.upper, 0.0, 1.0, clip=True)
    return mt.NormalizeIntensityd("image", nonzero=True)


def _pairs(options: argparse.Namespace) -> list[tuple[Path, Path]]:
    """Scans with their labels; a phantom's have the same name."""
    images = sorted((options.folder.parent / "images").glob("*.nii.gz"))
    return [(image, image.parent.parent / "truth" / image.name) for image in images]


def _system(options: argparse.Namespace) -> Any:
    """The system as both sides train it."""
    from msklabel.catalogue import load_catalogue

    system = load_catalogue(names=[options.system], profile=options.profile)[options.system]
    if len(system.channels) != 1 or system.train.deep_supervision:
        raise SystemExit(f"{options.system}, {options.profile}: the peer knows no channels and no deep supervision")
    crops = options.crops or system.train.batch
    plain = {"augment": {}, "batch": crops, "crops_per_scan": crops, "schedule": "constant", "plateau_epochs": None}
    data = system.model_dump(exclude_unset=True)
    data |= {"laterality": "none", "train": {**data["train"], **plain}, "variants": {}}
    return type(system).model_validate(data)


if __name__ == "__main__":
    main()
