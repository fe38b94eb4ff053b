"""Which system has which phantom generator."""

from __future__ import annotations

from collections.abc import Callable

from msklabel_phantoms.hip_abductor_mr import generate_hip_abductor_mr
from msklabel_phantoms.hip_ct import generate_hip_ct
from msklabel_phantoms.hip_radiograph import generate_hip_radiograph
from msklabel_phantoms.phantom import Phantom
from msklabel_phantoms.thigh_ct import generate_thigh_ct
from msklabel_phantoms.thigh_dixon import generate_thigh_dixon

# Each takes a numpy.random.Generator and, by keyword, shape and spacing_mm.
Generator = Callable[..., Phantom]

GENERATORS: dict[str, Generator] = {
    "hip_abductor_mr": generate_hip_abductor_mr,
    "hip_radiograph": generate_hip_radiograph,
    "hip_tissue_ct": generate_hip_ct,
    "thigh_ct": generate_thigh_ct,
    "thigh_dixon": generate_thigh_dixon,
}


def generator_of(system: str) -> Generator:
    """Return the generator of a system's phantoms.

    Raises:
        ValueError: There is none; names those there are.
    """
    try:
        return GENERATORS[system]
    except KeyError:
        raise ValueError(f"no phantom for system {system!r}; there are: {', '.join(sorted(GENERATORS))}") from None
