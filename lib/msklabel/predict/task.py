"""MONAI Label's InferTask over our segmenters."""

from __future__ import annotations

import shutil
import tempfile
import time
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from msklabel.errors import UserError
from msklabel.imaging.scan import Scan
from msklabel.imaging.write import write_labels
from msklabel.predict.classical import ClassicalSegmenter
from msklabel.predict.engine import Segmentation
from msklabel.predict.served import ServedModel
from msklabel.predict.source import read_for
from msklabel.system import System

RESULT_SUFFIXES = (".nii.gz", ".nrrd", ".nii", ".mha")
THRESHOLD_SUFFIX = "_threshold"


class SegmentationTask(InferTask):
    """Read a scan, segment it, write the label map with the scan's geometry.

    Args:
        system: Names the labels.
        description: For the client's list of models.
    """

    def __init__(self, system: System, description: str) -> None:
        super().__init__(InferType.SEGMENTATION, system.label_indices, system.dimensions, description)
        self.system = system

    def is_valid(self) -> bool:
        """Always listed: a model without a trained version says so when it is used."""
        return True

    @abstractmethod
    def segment(self, scan: Scan) -> tuple[str | None, Segmentation]:
        """Segment a scan; returns the model version too, where there is one."""

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Run on ``request["image"]``, a path on this machine.

        Args:
            request: ``image``; ``result_extension``, one of RESULT_SUFFIXES, NIfTI by default.

        Returns:
            Path of a temporary file, the caller's to remove, and facts for the client.

        Raises:
            UserError: If the scan cannot be read or does not fit the system, or the extension is none of ours.
        """
        suffix = str(request.get("result_extension") or RESULT_SUFFIXES[0])
        if suffix not in RESULT_SUFFIXES:
            raise UserError(f"result_extension {suffix!r} is not known; one of {', '.join(RESULT_SUFFIXES)}")
        started = time.perf_counter()
        scan = read_for(self.system, request["image"])
        read = time.perf_counter()
        version, result = self.segment(scan)
        segmented = time.perf_counter()
        folder = Path(tempfile.mkdtemp(prefix="msklabel-result-"))
        file = folder / f"{self.system.name}{suffix}"
        try:
            write_labels(file, result.labels, self.system.labels)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        written = time.perf_counter()
        seconds = {"read": read - started, **result.seconds, "write": written - segmented, "total": written - started}
        return str(file), {
            "label_names": self.system.label_indices,
            "latencies": {stage: round(s, 4) for stage, s in seconds.items()},
            "model_version": version,
        }


class ModelTask(SegmentationTask):
    """Segment with the published model version of a system."""

    def __init__(self, system: System, model: ServedModel) -> None:
        super().__init__(system, f"{system.title}; {system.network.name}, {system.profile} profile. {system.source}")
        self.model = model

    def info(self) -> dict[str, Any]:
        """What clients list, with the version in service (None while untrained)."""
        return {**super().info(), "version": self.model.version}

    def segment(self, scan: Scan) -> tuple[str | None, Segmentation]:
        """Segment with the version in service."""
        return self.model(scan)


class ClassicalTask(SegmentationTask):
    """Segment without a trained model, as a first draft to correct."""

    def __init__(self, system: System) -> None:
        source = system.thresholds.source if system.thresholds else ""
        super().__init__(system, f"{system.title}: thresholds and anatomy, no training, not validated. {source}")
        self.segmenter = ClassicalSegmenter(system)

    def segment(self, scan: Scan) -> tuple[str | None, Segmentation]:
        """Segment by thresholds."""
        return None, self.segmenter(scan)
