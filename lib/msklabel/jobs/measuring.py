"""Measures labels that are not measured yet, in a process of its own, which builds no MONAI Label app."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from msklabel.catalogue import load_catalogue
from msklabel.errors import NotFound, UserError
from msklabel.imaging.read import read_labels
from msklabel.measure.case_images import measurable, on_image_grid, read_image
from msklabel.measure.quantify import Quantified, SliceChoice, quantify
from msklabel.options import Options
from msklabel.store.annotation import annotated_of
from msklabel.store.core import Store
from msklabel.store.labels import FINAL
from msklabel.store.schema import LabelVersion
from msklabel.store.site import pacs_of, source_of

logger = logging.getLogger(__name__)
_HEIGHT = "height_cm"


class Measuring:
    """The store of a server; built in a job's process from the server's own words.

    Args:
        app_dir: Of the MONAI Label app; not needed here.
        studies: Folder of the user's images, or address of a DICOMweb server.
        conf: ``--conf`` keys and values.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        options = Options.from_conf(studies, conf)
        systems = load_catalogue(options.configs, options.models, options.profile)
        source = source_of(options, systems, pacs_of(options))
        self.store = Store(options.studies, options.state, systems, database=options.database, source=source)

    def quantities(self, request: Mapping[str, Any]) -> dict[str, int]:
        """Measure what is not measured yet, the newest labels first.

        Args:
            request: ``most`` versions.

        Returns:
            How many were ``measured``, and how many ``failed``.
        """
        counts = {"measured": 0, "failed": 0}
        for version_id in self.store.quantities.missing(FINAL, int(request["most"])):
            version = self.store.labels.get(version_id)
            try:
                found = measure_version(self.store, version)
            except Exception as error:  # as too little memory for this one, too; the others are not to wait for it
                foreseen = isinstance(error, UserError | OSError)
                logger.warning("%s, version %d: %s", version.image_id, version_id, error, exc_info=not foreseen)
                self.store.quantities.put(version_id, None, str(error) or type(error).__name__)
                counts["failed"] += 1
                continue
            measured: dict[str, Any] = {"rows": found.rows, "slices": found.slices}
            measured |= {"volume_slices": found.volume_slices, "notes": found.notes}
            self.store.quantities.put(version_id, measured)
            logger.info("%s, version %d: measured", version.image_id, version_id)
            counts["measured"] += 1
        return counts


def measure_version(store: Store, version: LabelVersion) -> Quantified:
    """Measure one label version, and the image under it where that is there.

    Raises:
        UserError: If the system is not served here, the label cannot be read, or the PACS does not give the image.
    """
    system = store.systems.get(version.system)
    if system is None:
        raise NotFound(f"the system {version.system} is not served here")
    labels = read_labels(store.labels.file(version))
    notes, values = [], {}
    try:
        image = read_image(store.images.path(version.image_id), system)
        labels = on_image_grid(labels, image, version.image_id, resample=False)
        values = measurable(image, system, version.image_id)
    except UserError as error:  # water and fat exchanged, a file that is away: volumes can be told all the same
        if error.status >= 500:  # it may be given with the next start
            raise
        notes.append(f"nothing is measured in the image: {error}")
    height = store.images.get(version.image_id).info.get(_HEIGHT)
    facts: dict[str, Any] = {"images": values, "annotated": annotated_of(version)}
    facts |= {"height_cm": float(height)} if isinstance(height, int | float) and height > 0 else {}
    try:
        found = quantify(version.image_id, labels.array, labels.affine, system, **facts)
    except UserError as error:
        found = quantify(version.image_id, labels.array, labels.affine, system, choice=SliceChoice("unknown"), **facts)
        notes.append(f"no reference slice: {error}")
    return replace(found, notes=[*notes, *found.notes])
