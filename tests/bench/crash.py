"""Kill a server hundreds of times at random instants while annotators submit; see tests/server/crash_site.py.

python tests/bench/crash.py --kills 200
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "server"))

from crash_site import CrashSite
from test_crash import check


def main() -> None:
    """Run, check, and say what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--annotators", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="crash-") as folder:
        site = CrashSite(Path(folder))
        try:
            outcome = site.run(options.kills, options.annotators, options.seed)
            check(site, outcome)
        finally:
            site.stop()
    print(
        f"{outcome.kills} kills, {len(outcome.acknowledged)} labels acknowledged, all there bit for bit; "
        f"{len(outcome.refused)} refused; {time.monotonic() - started:.0f} s"
    )


if __name__ == "__main__":
    main()
