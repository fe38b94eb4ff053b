"""An inference tells whoever asked how far it is, and ends when it is told to."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from msklabel.catalogue import load_catalogue
from msklabel.errors import Conflict
from msklabel.imaging.scan import Scan
from msklabel.networks import build_network
from msklabel.predict.engine import Engine
from msklabel.predict.progress import report, reported
from msklabel_phantoms.write import generate

SYSTEM = load_catalogue(None, ("hip_tissue_ct",), "demo")["hip_tissue_ct"]


@pytest.fixture(scope="module")
def work() -> tuple[Engine, Scan]:
    torch.manual_seed(0)
    phantom = generate(SYSTEM.name, 1, 0, shape=(48, 36, 4), spacing_mm=(8, 8, 5))
    return Engine(SYSTEM, build_network(SYSTEM)), Scan(phantom.image.astype(np.float32), phantom.affine, {})


def test_steps_are_told_to_whoever_asked(work: tuple) -> None:
    engine, scan = work
    steps: list[tuple[int, int]] = []
    with reported(lambda done, of: steps.append((done, of))):
        engine(scan)
    assert steps
    assert steps[-1][0] == steps[-1][1]
    assert [done for done, _ in steps] == sorted({done for done, _ in steps})
    told = len(steps)
    engine(scan)
    assert report() is None
    assert len(steps) == told


def test_what_is_not_wanted_any_more_ends_at_the_next_step(work: tuple) -> None:
    engine, scan = work
    seen: list[int] = []

    def stop(done: int, of: int) -> None:
        seen.append(done)
        raise Conflict("nobody waits")

    with pytest.raises(Conflict, match="nobody waits"), reported(stop):
        engine(scan)
    assert len(seen) == 1
