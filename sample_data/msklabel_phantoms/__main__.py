"""``python -m msklabel_phantoms SYSTEM --count N --seed S --out DIR``: write synthetic scans and their labels."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from msklabel_phantoms.generators import GENERATORS
from msklabel_phantoms.write import write_phantoms


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 2 for arguments that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m msklabel_phantoms", description=__doc__)
    parser.add_argument("system", help=f"one of: {', '.join(sorted(GENERATORS))}")
    parser.add_argument("--count", type=int, default=10, help="how many scans (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="which set, 0 or more (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder for images/, truth/ and facts.csv")
    parser.add_argument("--shape", type=int, nargs=3, metavar=("X", "Y", "Z"), help="voxels along each axis")
    parser.add_argument("--spacing-mm", type=float, nargs=3, metavar=("X", "Y", "Z"), help="voxel size in mm")
    options = parser.parse_args(arguments)
    try:
        for path in write_phantoms(**vars(options)):
            print(path)
    except ValueError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
