"""MONAI Label's InferTask over our segmenters."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from msklabel.errors import UserError
from msklabel.imaging.files import stamp_of
from msklabel.imaging.radiograph import viewer_affine
from msklabel.imaging.scan import DOUBTS, LabelMap, Scan
from msklabel.imaging.write import write_labels
from msklabel.predict.ahead import Ahead, Question, new_result
from msklabel.predict.classical import ClassicalSegmenter, require_hounsfield
from msklabel.predict.engine import Segmentation
from msklabel.predict.interpolate import ANY_SYSTEM, FIND_AXIS, Drawn, StoredLabel, fill, read_drawn
from msklabel.predict.served import ServedModel
from msklabel.predict.source import read_for
from msklabel.sections import Label
from msklabel.system import System

logger = logging.getLogger(__name__)
RESULT_SUFFIXES = (".nii.gz", ".nrrd", ".nii", ".mha")
THRESHOLD_SUFFIX = "_threshold"
INTERPOLATE = "interpolate"


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
        suffix = _result_suffix(request)
        started = time.perf_counter()
        scan = read_for(self.system, request["image"])
        read = time.perf_counter()
        version, result = self.segment(scan)
        segmented = time.perf_counter()
        seen = viewer_affine(Path(request["image"]))  # of a radiograph, where viewers put its pixels
        labels = result.labels if seen is None else LabelMap(result.labels.array, seen)
        file = _write_result(f"{self.system.name}{suffix}", labels, self.system.labels)
        written = time.perf_counter()
        seconds = {"read": read - started, **result.seconds, "write": written - segmented, "total": written - started}
        warnings = [*result.facts.get("warnings", ())]
        for doubt in filter(None, map(scan.facts.get, DOUBTS)):
            warnings.append(doubt)
            logger.warning("%s: %s", Path(request["image"]).name, doubt)
        return str(file), {
            "label_names": self.system.label_indices,
            "latencies": {stage: round(s, 4) for stage, s in seconds.items()},
            "model_version": version,
            **result.facts,
            **({"warnings": warnings} if warnings else {}),
        }


class ModelTask(SegmentationTask):
    """Segment with the published model version of a system.

    Args:
        system: The system.
        model: Its model.
        ahead: Where segmentations that were made before anybody asked are kept.
    """

    def __init__(self, system: System, model: ServedModel, ahead: Ahead | None = None) -> None:
        super().__init__(system, f"{system.title}; {system.network.name}, {system.profile} profile. {system.source}")
        self.model = model
        self.ahead = ahead

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Answer at once where the segmentation is there already, else make it."""
        return self.ready(request) or super().__call__(request)

    def ready(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
        """What was segmented ahead, with ``ahead`` among the facts; None where it was not, or things have changed."""
        started = time.perf_counter()
        found = self.ahead.take(self.question(request)) if self.ahead else None
        if found is None:
            return None
        file, facts = found
        return file, {**facts, "ahead": True, "latencies": {"total": round(time.perf_counter() - started, 4)}}

    def lacks(self, request: Mapping[str, Any]) -> bool:
        """Whether it could be segmented ahead, and is not."""
        if self.ahead is None or self.model.version is None:
            return False
        return not self.ahead.holds(self.question(request))

    def segment_ahead(self, request: Mapping[str, Any]) -> None:
        """Segment for whoever asks later, unless things change meanwhile."""
        question = self.question(request)
        file, facts = super().__call__(request)
        try:
            if self.ahead and question == self.question(request):
                self.ahead.put(question, Path(file), facts)
        finally:
            Path(file).unlink(missing_ok=True)

    def question(self, request: Mapping[str, Any]) -> Question:
        """All that decides what comes out."""
        path = Path(request["image"])
        try:
            stamp = stamp_of(path, self.system.channels)
        except OSError:
            stamp = ()  # reading it will say what is wrong
        names = ("", *self.system.variants)
        versions = tuple(self.model.answering(variant) for variant in names)
        return Question(self.system.name, str(path), stamp, _result_suffix(request), versions)

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
        """Segment by thresholds; UserError for what is no CT."""
        require_hounsfield(self.system, scan)
        return None, self.segmenter(scan)


class InterpolateTask(InferTask):
    """Fill a scan's label between the slices that an annotator has drawn.

    Listed as a segmentation model, the only kind that 3D Slicer offers for a whole scan without clicks.

    Args:
        systems: Systems that labels may belong to, by name.
        stored: Finds the newest stored label of an image, of one system or (empty) of any.
    """

    def __init__(self, systems: Mapping[str, System], stored: Callable[[str, str], StoredLabel]) -> None:
        config = {"system": [ANY_SYSTEM, *systems], "axis": [FIND_AXIS, "0", "1", "2"]}
        description = "Fills the submitted label of a scan between the slices that were drawn; one in five is enough"
        super().__init__(InferType.SEGMENTATION, [], 3, description, config=config)
        self.systems = systems
        self.stored = stored

    def is_valid(self) -> bool:
        """Always listed."""
        return True

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Fill ``request["label"]``, a path on this machine, or the newest stored label of ``request["image_id"]``.

        Args:
            request: ``label`` or ``image_id``; ``system`` of the label; ``axis`` and ``slices`` that were drawn, found
                from the label by default; ``label_info`` as for a submission; ``result_extension``.

        Returns:
            Path of a temporary file, the caller's to remove, and facts for the client.

        Raises:
            UserError: If there is no label, or nothing in it to interpolate between.
        """
        suffix = _result_suffix(request)
        started = time.perf_counter()
        drawn = self._drawn(request)
        labels, facts = fill(drawn)
        scheme = self.systems[drawn.system].labels if drawn.system else {}
        file = _write_result(f"{drawn.system or INTERPOLATE}{suffix}", labels, scheme)
        seconds = round(time.perf_counter() - started, 4)
        params = {"label_names": drawn.names, "system": drawn.system, "latencies": {"total": seconds}}
        return str(file), {**params, **facts, "model_version": None}

    def _drawn(self, request: Mapping[str, Any]) -> Drawn:
        system = str(request.get("system") or ANY_SYSTEM)
        system = "" if system == ANY_SYSTEM else system
        if request.get("label"):
            return read_drawn(Path(request["label"]), self.systems, system, request)
        if not request.get("image_id"):
            raise UserError("which label? Send the form field 'label', or name a scan that has a submitted one")
        stored = self.stored(str(request["image_id"]), system)
        return read_drawn(stored.file, self.systems, stored.system, request, stored.annotated)


def _result_suffix(request: Mapping[str, Any]) -> str:
    suffix = str(request.get("result_extension") or RESULT_SUFFIXES[0])
    if suffix not in RESULT_SUFFIXES:
        raise UserError(f"result_extension {suffix!r} is not known; one of {', '.join(RESULT_SUFFIXES)}")
    return suffix


def _write_result(name: str, labels: LabelMap, scheme: Mapping[str, Label]) -> Path:
    """Write to a temporary file; what fails leaves nothing."""
    file = new_result(name)
    try:
        write_labels(file, labels, scheme)
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return file
