"""Segment one scan with a system and with MONAI Label's own path, on the same weights, in turns.

    python tests/bench/bench_predict.py --labelmap pelvis_to_knee_labels.nii.gz --shape 320x320x100 --repeats 3

makes a synthetic CT out of a real label map (``msklabel synthesize``) and segments it with ``thigh_ct``'s paper
network; ``--scan`` takes a scan that is there. The peer is ``stock_infer.py``, which runs MONAI Label's BasicInferTask;
say where it lies with ``--stock`` or MSKLABEL_STOCK_INFER. Weights are random unless ``--weights`` names the file of a
trained version. The peer knows one channel, no sides, no variants and no mirrored passes, so that both do without them;
intensities that a system takes from the scan itself are told to the peer, which does not look for the body.
Each run is a process of its own; both load and get ready first, which is not timed, then read, segment and write. A
first run of ours, from which a server learns whether faster backends are worth a trial, is not counted.
Printed are medians over the runs, of the ratios too. CPU seconds hold on a busy machine, wall seconds on an idle one.
The ideal time is the network's floating-point operations at the rate of this machine's matrix products, for each side
in the precision that it computes in.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from bench_scans import as_nifti, resampled, synthetic

SIDES = ("stock", "ours")
_GEMM = 2048


def main() -> None:
    """Run both sides in turns, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", default="thigh_ct", help="which system (thigh_ct)")
    parser.add_argument("--profile", default="paper", help="paper or demo (paper)")
    parser.add_argument("--configs", type=Path, help="folder with systems of one's own")
    parser.add_argument("--scan", type=Path, help="scan to segment")
    parser.add_argument("--labelmap", type=Path, help="instead: label map to make a CT of")
    parser.add_argument("--shape", default="320x320x100", help="voxels of that CT (320x320x100)")
    parser.add_argument("--stock", type=Path, default=os.environ.get("MSKLABEL_STOCK_INFER"), help="stock_infer.py")
    parser.add_argument("--skip-stock", action="store_true", help="time ours only")
    parser.add_argument("--weights", type=Path, help="weights.safetensors of a version trained with this profile")
    parser.add_argument("--cut", metavar="SHAPE", help="take only so many voxels out of the scan's middle")
    parser.add_argument("--own-spacing", action="store_true", help="resample the scan to the network's grid beforehand")
    parser.add_argument("--windows", choices=("spread", "from_edge"), help="where our windows lie (as the system says)")
    lies = ("edge_to_edge", "from_first_voxel")
    parser.add_argument("--resampling", choices=lies, help="how our working grid lies (as the system says)")
    parser.add_argument("--above", type=float, help="compare labels also where the scan is above this, such as -200 HU")
    parser.add_argument("--truth", type=Path, help="labels of the scan, to tell which side is nearer to them")
    parser.add_argument("--backend", default="auto", help="what runs our network (auto, the fastest)")
    parser.add_argument("--threads", type=int, default=2, help="of each side (2)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side (3)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(_stock(options) if options.worker == "stock" else _ours(options)))
        return
    if (options.labelmap is None) == (options.scan is None):
        parser.error("give --labelmap or --scan")
    if not options.skip_stock and (options.stock is None or not Path(options.stock).is_file()):
        parser.error("say where stock_infer.py lies: --stock FILE or MSKLABEL_STOCK_INFER; or --skip-stock")
    with tempfile.TemporaryDirectory(prefix="msklabel-bench-") as folder:
        figures = compare(options, Path(folder))
    show(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def compare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Runs of both sides and what follows from them."""
    scan = (
        as_nifti(options.scan, options.cut, folder)
        if options.scan
        else synthetic(options.labelmap, options.shape, folder)
    )
    if options.own_spacing:
        scan = resampled(scan, _system(options).spacing_mm, folder)
    sides = SIDES[1:] if options.skip_stock else SIDES
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    _run("ours", scan, options, folder)
    for number in range(options.repeats):
        for side in sides:
            runs[side].append(run := _run(side, scan, options, folder))
            print(f"run {number + 1}, {side}: {run['wall_s']:.1f} s, {run['peak_gib']:.2f} GiB", file=sys.stderr)
    figures: dict[str, Any] = {
        "system": options.system,
        "profile": options.profile,
        "scan": runs["ours"][0]["shape"],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "threads": options.threads,
        "weights": "trained" if options.weights else "random",
        "runs": runs,
    }
    if not options.skip_stock:
        pairs = list(zip(runs["ours"], runs["stock"], strict=True))
        keys = ("wall_s", "cpu_s", "peak_gib")
        figures["ratios"] = {key: median(ours[key] / stock[key] for ours, stock in pairs) for key in keys}
        figures["voxels_equal"] = _equal(folder)
        if options.above is not None:
            figures |= {"voxels_equal_above": _equal(folder, scan, options.above), "above": options.above}
    if options.truth:
        figures["dice"] = {side: _dice(folder / f"{side}.nii.gz", options.truth) for side in sides}
    return figures


def _run(side: str, scan: Path, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One run of one side."""
    arguments = [*sys.argv[1:], "--scan", str(scan), "--worker", side, "--folder", str(folder)]
    env = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    if side == "stock":  # large pages are our choice, of which importing our package must not let it profit
        env["THP_MEM_ALLOC_ENABLE"] = "0"
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, env=env)
    if done.returncode:
        sys.exit(f"the run of {side} failed")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def show(figures: dict[str, Any]) -> None:
    """Print the figures."""
    from rich.console import Console
    from rich.table import Table

    title = "{system}, {profile} profile, {scan} voxels, {weights} weights, {threads} threads, {machine}".format(
        **figures
    )
    table = Table("median of runs", *figures["runs"], "ours / stock", title=title.format(**figures))
    rows = {"wall_s": "wall (s)", "cpu_s": "CPU (s)", "peak_gib": "peak memory (GiB)", "ready_s": "getting ready (s)"}
    rows |= {"windows": "windows", "outside_percent": "outside the network (% of wall)"}
    rows |= {"ideal_s": "ideal time of the network (s)", "roofline_percent": "ideal / network (%)"}
    rows["roofline_f32_percent"] = "the same in single precision (%)"
    for key, name in rows.items():
        medians = [f"{median(run[key] for run in runs):.2f}" for runs in figures["runs"].values()]
        table.add_row(name, *medians, f"{figures['ratios'][key]:.3f}" if key in figures.get("ratios", {}) else "")
    Console(width=110).print(table)
    print(f"ours ran on {figures['runs']['ours'][0]['backend']}; ideal times are those of its precision")
    if "voxels_equal" in figures:
        print(f"labels equal at {100 * figures['voxels_equal']:.3f} % of voxels")
    if "above" in figures:
        print(f"above {figures['above']:g}: {100 * figures['voxels_equal_above']:.3f} %")
    if "dice" in figures:
        print("mean Dice with the truth:", ", ".join(f"{side} {dice:.4f}" for side, dice in figures["dice"].items()))


class Clock:
    """Adds up the time and the windows that a network takes."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.windows = 0

    def around(self, forward: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def timed(windows: Any) -> Any:
            started = time.perf_counter()
            scores = forward(windows)
            self.seconds += time.perf_counter() - started
            self.windows += len(windows)
            return scores

        return timed


@contextmanager
def measured(run: dict[str, Any], clock: Clock) -> Iterator[None]:
    """Wall and CPU time of a block, and the peak of the process until its end."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    run["wall_s"], run["cpu_s"] = time.perf_counter() - wall, time.process_time() - cpu
    run["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    run["windows"], run["network_s"] = clock.windows, clock.seconds
    run["outside_percent"] = 100 * (1 - clock.seconds / run["wall_s"])


def _ours(options: argparse.Namespace) -> dict[str, Any]:
    """Our task, as the server runs it."""
    from msklabel.imaging.read import read_labels
    from msklabel.predict.selection import Selection
    from msklabel.predict.served import ServedModel
    from msklabel.predict.task import ModelTask

    started = time.perf_counter()
    system, trained = _system(options), _weights(options)
    clock, run = Clock(), {}

    class Source:
        def serving(self, name: str, variant: str = "") -> str:
            return "bench"

        def weights(self, system: Any, name: str) -> list[dict[str, Any]]:
            return [trained]

    model = ServedModel(system, Source(), "cpu", Selection(options.folder, options.backend))
    engine = model.apply(lambda engine: engine)
    run["ready_s"] = time.perf_counter() - started
    engine.forwards = [clock.around(forward) for forward in engine.forwards]
    task = ModelTask(system, model)
    with measured(run, clock):
        file, params = task({"image": str(options.scan)})
    Path(file).rename(options.folder / "ours.nii.gz")
    run["stages_s"], run["backend"] = params["latencies"], params["backend"]
    run["shape"] = "x".join(str(n) for n in read_labels(options.folder / "ours.nii.gz").array.shape)
    return run | _roofline(system, run)


def _stock(options: argparse.Namespace) -> dict[str, Any]:
    """MONAI Label's task, with the chain of its own radiology app, as ``stock_infer.py`` puts it together."""
    started = time.perf_counter()
    spec = importlib.util.spec_from_file_location("stock_infer", options.stock)
    stock = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stock)
    from monai.inferers import SliceInferer
    from monai.transforms import Lambdad, NormalizeIntensityd

    from msklabel.imaging.read import read_scan
    from msklabel.networks import loaded_network

    system = _system(options)
    window = (system.intensity.lower, system.intensity.upper) if system.intensity.kind == "window" else None
    gamma = getattr(system.intensity, "gamma", 1)
    scan = read_scan(options.scan)
    native = scan.spacing_mm
    mean_sd = None if window else _mean_sd(system, scan)
    clock, run = Clock(), {}

    class Peer(stock.Stock):
        def pre_transforms(self, data: Any = None) -> list:
            steps = super().pre_transforms(data)
            if mean_sd:
                return [*steps[:-1], NormalizeIntensityd("image", *mean_sd)]
            return steps if gamma == 1 else [*steps, Lambdad("image", lambda image: image**gamma)]

        def inferer(self, data: Any = None) -> Any:
            whole = super().inferer(data)
            if system.dimensions == 2:
                flat = {"roi_size": system.patch_voxels[:2], "spatial_dim": 2, "mode": "gaussian", "sw_batch_size": 2}
                whole = SliceInferer(overlap=system.predict.overlap, padding_mode="replicate", **flat)
            return whole

    arguments = argparse.Namespace(
        window=window,
        spacing=[wanted or own for wanted, own in zip(system.spacing_mm, native, strict=True)],
        roi=list(system.patch_voxels),
        overlap=system.predict.overlap,
        classes=system.classes,
    )
    network = loaded_network(system, _weights(options)).eval()
    network.forward = clock.around(network.forward)
    task = Peer(arguments, network)
    run["ready_s"] = time.perf_counter() - started
    with measured(run, clock):
        file, result = task({"image": str(options.scan), "device": "cpu", "logging": "ERROR"})
    Path(file).rename(options.folder / "stock.nii.gz")
    run["stages_s"] = {stage: s for stage, s in result["latencies"].items() if isinstance(s, float)}
    return run | _roofline(system, run)


def _system(options: argparse.Namespace) -> Any:
    """The system as both sides can run it."""
    from msklabel.system import System

    known = _full_system(options).model_dump()
    plain = {"channels": known["channels"][:1], "laterality": "none", "variants": {}}  # these look at all channels
    predict = known["predict"] | {"mirror_axes": []} | ({"windows": options.windows} if options.windows else {})
    plain["resampling"] = options.resampling or known["resampling"]
    return System.model_validate(known | plain | {"predict": predict})


def _full_system(options: argparse.Namespace) -> Any:
    from msklabel.catalogue import load_catalogue

    return load_catalogue(options.configs, [options.system], options.profile)[options.system]


def _weights(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from msklabel.learn.versions import read_weights
    from msklabel.networks import build_network, weights_of

    if options.weights:
        full = _full_system(options)
        if len(full.channels) > 1:
            raise SystemExit(
                f"{options.system}, {options.profile}: the peer knows one channel only; leave out --weights"
            )
        return read_weights(options.weights, full)
    torch.manual_seed(0)
    return weights_of(build_network(_system(options)))


def _mean_sd(system: Any, scan: Any) -> tuple[float, float]:
    """What our normalisation takes off a scan, and divides it by."""
    from msklabel.pipeline.preprocess import Preprocess
    from msklabel.pipeline.resample import resample_scan

    prepared = Preprocess(system)(scan)
    grid = prepared.grid
    raw = resample_scan(grid.orient(scan.array), grid.along)[0][grid.crop]
    ours = prepared.image
    divisor = float((raw.max() - raw.min()) / (ours.max() - ours.min()))
    return float(raw.min() - ours.min() * divisor), divisor


def _roofline(system: Any, run: dict[str, Any]) -> dict[str, float]:
    """Seconds that the network's operations would take at the rate of a large matrix product of the same precision."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from msklabel.networks import build_network
    from msklabel.predict.backends import OPENVINO_PRECISIONS

    window = torch.zeros(1, len(system.channels), *system.patch_voxels[: system.dimensions])
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        build_network(system).eval()(window)
    gflop = counter.get_total_flops() / 1e9
    precision = OPENVINO_PRECISIONS.get(run.get("backend", ""), "f32")
    single, own = (_gemm_gflop_per_s(kind) for kind in ("f32", precision))
    ideal = gflop * run["windows"] / own
    found = {"window_gflop": gflop, "gemm_gflop_per_s": own, "ideal_s": ideal}
    shares = {"roofline_percent": ideal, "roofline_f32_percent": gflop * run["windows"] / single}
    return found | {name: 100 * seconds / run["network_s"] for name, seconds in shares.items()}


def _gemm_gflop_per_s(precision: str) -> float:
    """The best of eight products of large matrices."""
    import torch

    types = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
    a, b = torch.randn(2, _GEMM, _GEMM).to(types[precision])
    seconds = []
    for _ in range(8):
        started = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - started)
    return 2 * _GEMM**3 / min(seconds) / 1e9


def _equal(folder: Path, scan: Path | None = None, above: float = 0) -> float:
    """Share of voxels of one label on both sides; of a scan, of those above a value only."""
    from msklabel.imaging.read import read_labels, read_scan

    ours, stock = (read_labels(folder / f"{side}.nii.gz").array for side in ("ours", "stock"))
    same = ours == stock
    return float(np.mean(same if scan is None else same[read_scan(scan).array[0] > above]))


def _dice(labels: Path, truth: Path) -> float:
    """Mean over the labels that the truth has."""
    from msklabel.imaging.read import read_labels
    from msklabel.predict.engine import dice

    predicted, true = (read_labels(file).array for file in (labels, truth))
    return float(np.mean([dice(predicted, true, int(label)) for label in np.unique(true[true > 0])]))


if __name__ == "__main__":
    main()
