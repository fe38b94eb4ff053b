"""``msklabel evaluate`` beside MONAI's metrics on one pair: ``python tests/bench/bench_evaluate.py``.

Two thighs with 29 labels at 512x512x250, the prediction moved by a voxel and frayed. Each runs in a process of its own;
the figures are seconds, from label files to numbers, and peak resident memory. MONAI gets one label at a time, because
a one-hot array of all would need 15 GB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

_WORKER = """
import json, sys, time
from pathlib import Path
which, truth, predicted, spacing = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
start = time.perf_counter()
from msklabel.imaging.read import read_labels
a, b = read_labels(truth), read_labels(predicted)
if which == "ours":
    from msklabel.catalogue import load_catalogue
    from msklabel.measure.evaluate import evaluate_pair
    rows = evaluate_pair("x", a.array, b.array, a.affine, load_catalogue(names=["thigh_ct"])["thigh_ct"])
    found = {r.structure: [r.dice, r.assd_mm, r.hd_mm, r.hd95_mm] for r in rows
             if r.kind == "label" and r.side == "both"}
    count = len(rows)
else:
    import torch
    from monai.metrics import compute_average_surface_distance as asd
    from monai.metrics import compute_dice, compute_hausdorff_distance as hd
    from msklabel.catalogue import load_catalogue
    found, count = {}, 0
    for name, i in load_catalogue(names=["thigh_ct"])["thigh_ct"].label_indices.items():
        y, p = (torch.from_numpy(m.array == i)[None, None] for m in (a, b))
        o = dict(include_background=True, spacing=spacing)
        found[name] = [float(v) for v in (
            compute_dice(p.float(), y.float(), include_background=True),
            asd(p, y, symmetric=True, **o), hd(p, y, **o), hd(p, y, percentile=95, **o))]
        count += 1
seconds = time.perf_counter() - start
used = time.process_time()
status = Path("/proc/self/status").read_text()  # ru_maxrss would begin with what the parent had when it forked
peak = int(status.split("VmHWM:")[1].split()[0]) / 2**20
print(json.dumps({"seconds": seconds, "cpu_seconds": used, "peak_gib": peak, "rows": count, "found": found}))
"""


def main() -> None:
    """Make the pair, measure both, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 250))
    parser.add_argument("--spacing", type=float, nargs=3, default=(0.9, 0.9, 2.0), help="mm")
    parser.add_argument("--skip-monai", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = [str(file) for file in write_pair(Path(folder), tuple(options.shape), options.spacing)]
        results = {}
        for which in ("ours", "monai")[: 1 if options.skip_monai else 2]:
            command = [sys.executable, "-c", _WORKER, which, *files, json.dumps(list(options.spacing))]
            results[which] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            r = results[which]
            took = f"{r['seconds']:7.1f} s, {r['cpu_seconds']:6.1f} s of CPU, {r['peak_gib']:6.2f} GiB"
            print(f"{which:6} {took}, {r['rows']} rows", flush=True)
    if "monai" in results:
        ours, theirs = (np.array(list(results[which]["found"].values())) for which in ("ours", "monai"))
        print(f"largest difference over {ours.size} values: {np.nanmax(np.abs(ours - theirs)):.2g}")
        print(f"MONAI / ours: {results['monai']['seconds'] / results['ours']['seconds']:.1f} times the time")


def write_pair(folder: Path, shape: tuple[int, ...], spacing_mm: list[float]) -> list[Path]:
    """A thigh phantom's labels enlarged to the shape, and a frayed copy."""
    from scipy import ndimage

    from msklabel.imaging.scan import LabelMap
    from msklabel.imaging.write import write_labels
    from msklabel_phantoms.write import generate

    small = generate("thigh_ct", seed=0, index=0).labels
    scale = shape[0] / small.shape[0]  # square voxels in plane, as the phantom's; what is missing in depth is empty
    rows = np.arange(shape[1]) - (shape[1] - round(small.shape[1] * scale)) // 2
    inside = (rows >= 0) & (rows < small.shape[1] * scale)
    index = [np.arange(n) * m // n for n, m in zip(shape, small.shape, strict=True)]
    index[1] = np.clip(rows / scale, 0, small.shape[1] - 1).astype(int)
    truth = small[np.ix_(*index)] * inside[None, :, None].astype(np.uint8)
    rng = np.random.default_rng(0)
    coarse = [rng.integers(-2, 3, [max(2, n // 16) for n in shape]).astype(np.int8) for _ in range(3)]
    shifts = [
        ndimage.zoom(c, [n / m for n, m in zip(shape, c.shape, strict=True)], order=0)[: shape[0]] for c in coarse
    ]
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    moved = tuple(np.clip(axis + shift, 0, n - 1) for axis, shift, n in zip(axes, shifts, shape, strict=True))
    affine = np.diag([*spacing_mm, 1.0])
    files = [folder / "truth.nii.gz", folder / "predicted.nii.gz"]
    for file, labels in zip(files, (truth, truth[moved]), strict=True):
        write_labels(file, LabelMap(np.ascontiguousarray(labels), affine))
    return files


if __name__ == "__main__":
    main()
