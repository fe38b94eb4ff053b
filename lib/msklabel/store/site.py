"""Where the studies are, by the server's options: the same for the server, and for every process that works for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from msklabel.options import Options
from msklabel.store.pacs import Pacs
from msklabel.store.source import PacsSource, Source
from msklabel.system import System


def pacs_of(options: Options) -> Pacs | None:
    """The PACS that holds the studies; None where they are in a folder."""
    return Pacs(options.pacs.url, options.pacs.user, options.pacs.password) if options.pacs else None


def source_of(
    options: Options, systems: Mapping[str, System], pacs: Pacs | None
) -> Callable[[Path, list[str]], Source] | None:
    """What a store takes its images from, as :class:`msklabel.store.core.Store` wants it; None for its folder."""
    if options.pacs is None or pacs is None:
        return None
    modalities = sorted({modality for system in systems.values() for modality in system.modality})
    most_bytes = options.pacs.cache_bytes

    def source(root: Path, channels: list[str]) -> Source:
        return PacsSource(pacs, root, modalities, channels, most_bytes)

    return source
