"""What is done with Systems. Jobs need no more: the MONAI Label app around it takes seconds to import."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.train import TrainTask

from msklabel.catalogue import load_catalogue
from msklabel.choose.task import Choosers, DiceScoring, SummaryScoring
from msklabel.errors import NotFound, UserError
from msklabel.imaging.annotated import Annotated
from msklabel.jobs.precedence import INTERACTIVE, PATIENCE_OF_TRAINING, PRECEDENCE, waiter
from msklabel.learn.task import SystemTrainTask
from msklabel.learn.versions import Versions
from msklabel.options import Options
from msklabel.predict.ahead import Ahead
from msklabel.predict.backends import require_backend
from msklabel.predict.interpolate import StoredLabel
from msklabel.predict.selection import AUTO, Selection
from msklabel.predict.served import ServedModel
from msklabel.predict.task import INTERPOLATE, THRESHOLD_SUFFIX, ClassicalTask, InterpolateTask, ModelTask
from msklabel.store.datastore import MskDatastore
from msklabel.store.labels import FINAL, ORIGINAL
from msklabel.store.site import pacs_of, source_of
from msklabel.system import ConfigError, System

logger = logging.getLogger(__name__)
_MOST_AHEAD = 64  # segmentations; some hundred kilobytes each


class Work:
    """Infers, trains and scores for every System it is given; knows none of them by name.

    Args:
        app_dir: Folder of the MONAI Label app; not needed here.
        studies: Folder of the user's images, or address of a DICOMweb server.
        conf: ``--conf`` keys and values, see :mod:`msklabel.options`.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str] | None = None) -> None:
        self.configure(studies, conf or {})
        self._datastore = self.init_datastore()
        self._infers = self.init_infers()
        self._trainers = self.init_trainers()
        self._scoring_methods = self.init_scoring_methods()

    def configure(self, studies: str, conf: Mapping[str, str]) -> None:
        """Take in the options and the systems.

        Raises:
            UserError: If one is wrong.
        """
        self.options = Options.from_conf(studies, conf)
        self.systems = load_catalogue(self.options.configs, self.options.models, self.options.profile)
        _check(self.options, self.systems)
        self.versions = Versions(self.options.state / "models")
        self.pacs = pacs_of(self.options)
        self.choosers = Choosers(self.versions)
        self.ahead = Ahead(_MOST_AHEAD)

    def datastore(self) -> Datastore:
        """Images and labels."""
        return self._datastore

    def init_datastore(self) -> Datastore:
        """Images of the studies folder, labels under the state folder."""
        models = {name: name for name in self.systems}
        models |= {name + THRESHOLD_SUFFIX: name for name, system in self.systems.items() if system.thresholds}
        options = self.options
        source = source_of(options, self.systems, self.pacs)
        return MskDatastore(
            options.studies, options.state, self.systems, models, options.database, options.lease_s, source
        )

    def init_infers(self) -> dict[str, InferTask]:
        """One model for each system, its training-free draft where it has one, and interpolation."""
        tasks: dict[str, InferTask] = {}
        select = Selection(self.options.state, self.options.backend)
        for name, system in self.systems.items():
            model = ServedModel(system, self.versions, self.options.device, select)
            tasks[name] = ModelTask(system, model, self.ahead)
            if system.thresholds:
                tasks[name + THRESHOLD_SUFFIX] = ClassicalTask(system)
        tasks[INTERPOLATE] = InterpolateTask(self.systems, self._stored_label)
        return tasks

    def init_trainers(self) -> dict[str, TrainTask]:
        """One trainer for each system."""
        store: Any = self.datastore()
        pause = waiter(self.options.state / INTERACTIVE, patience=PATIENCE_OF_TRAINING)
        return {
            name: SystemTrainTask(
                system,
                self.versions,
                store.training_pairs,
                store.store,
                self.options.device,
                self.options.cache_bytes,
                self.options.mlflow,
                store.store.reviews.hold,
                pause,
            )
            for name, system in self.systems.items()
        }

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """All scoring methods."""
        device = _device_of(self.options)
        wait = waiter(self.options.state / PRECEDENCE)
        select = Selection(self.options.state, self.options.backend)
        summary = SummaryScoring(self.choosers, self.versions, device, wait, select)
        return {"dice": DiceScoring(), "summary": summary}

    def train(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Train one system on the submitted labels.

        Args:
            request: ``model``, name of the system; options of the training.

        Raises:
            NotFound: If there is no such system.
            UserError: If an option has a value that it cannot have, or there is nothing to learn from.
        """
        result: dict[str, Any] = self._trainer(str(request.get("model")))(dict(request), self.datastore())
        return result

    def scoring(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Score labels or scans.

        Args:
            request: ``method``, and its options.
            datastore: Instead of the app's.

        Raises:
            NotFound: If there is no such method.
        """
        task = self._scoring_methods.get(str(request.get("method")))
        if task is None:
            known = ", ".join(self._scoring_methods)
            raise NotFound(f"there is no scoring method {request.get('method')!r}; methods: {known}")
        result: dict[str, Any] = task(dict(request), datastore or self.datastore())
        return result

    def background(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Bring the scores up to date, a part at a time, while nobody waits for anything else."""
        result: dict[str, Any] = self.scoring({**request, "method": "summary"})
        return result

    def infer(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Segment one image.

        Args:
            request: ``model``; ``image``, an identifier in the datastore, or ``image_file``, a path that the caller
                vouches for; ``save_label`` to store the result; options of the model.
            datastore: Instead of the app's.

        Raises:
            NotFound: If there is no such model or image.
            UserError: If the image does not fit the model.
        """
        store = datastore or self.datastore()
        task = self._infers.get(str(request.get("model")))
        if task is None:
            raise NotFound(f"there is no model {request.get('model')!r}; models: {', '.join(self._infers)}")
        upload = request.get("image_file") or self._session_scan(request)
        if upload is None and not isinstance(request.get("image"), str):
            raise UserError("which image? Give the identifier of one in the datastore")
        scan = {"image": str(upload)} if upload else {"image_id": request["image"]}
        if upload is None:
            scan["image"] = store.get_image_uri(request["image"])
        result, params = task({**request, **scan})
        tag = DefaultLabelTag.ORIGINAL.value
        if request.get("label_tag"):
            tag = str(getattr(request["label_tag"], "value", request["label_tag"]))
        label = result
        if request.get("save_label") and upload is None:
            info = {"model": request["model"], "params": params}
            info |= {"system": params["system"]} if params.get("system") else {}
            try:
                label = store.save_label(request["image"], result, tag, info)
            except BaseException:
                Path(result).unlink(missing_ok=True)
                raise
        return {"label": label, "tag": tag, "file": result, "params": params}

    def batch_infer(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Segment many images one after the other and store the results; a bad one does not stop the others.

        Args:
            request: ``model``; ``images``, one of ``all``, ``labeled`` and ``unlabeled``, or identifiers;
                ``max_batch_size``, where not 0 the most images; ``label_tag``; options of the model.
            datastore: Instead of the app's.

        Returns:
            For each image the facts that the model gave, or ``error`` with a sentence.

        Raises:
            UserError: If no image could be segmented.
        """
        store = datastore or self.datastore()
        images = sorted(_asked_images(request, store))[: request.get("max_batch_size") or None]
        results: dict[str, Any] = {}
        for number, image in enumerate(images, 1):
            try:
                result = self.infer({**request, "image": image, "save_label": True}, store)
                Path(result["file"]).unlink(missing_ok=True)
                results[image] = result["params"]
            except UserError as error:
                results[image] = {"error": str(error)}
            logger.info("%d of %d: %s: %s", number, len(images), image, results[image].get("error", "stored"))
        errors = [result["error"] for result in results.values() if "error" in result]
        if errors and len(errors) == len(images):
            raise UserError(f"none of {len(images)} images could be segmented; the first: {errors[0]}")
        return results

    def compare(self, system: str, a: str, b: str, measure: bool) -> dict[str, Any]:
        """Two versions of a system on its frozen validation scans.

        Args:
            system: Name of the system.
            a: Version.
            b: Version.
            measure: Whether to predict where a version was not measured yet.

        Raises:
            NotFound: If there is no such system or version.
            Conflict: If both were measured on no common case.
        """
        return self._trainer(system).compare(a, b, measure)

    def _trainer(self, system: str) -> SystemTrainTask:
        task = self._trainers.get(system)
        if not isinstance(task, SystemTrainTask):
            raise NotFound(f"there is no system {system!r}; systems: {', '.join(self._trainers)}")
        return task

    def _stored_label(self, image_id: str, system: str) -> StoredLabel:
        """The newest finished label of an image, else its newest automatic one.

        Raises:
            NotFound: If there is none.
        """
        labels = self.datastore().store.labels
        tags = {version.tag for version in labels.history(image_id, system=system) if version.withdrawn is None}
        if not tags:
            raise NotFound(f"image {image_id!r} has no label{f' of {system}' if system else ''} yet; submit it first")
        tag = FINAL if FINAL in tags else ORIGINAL if ORIGINAL in tags else sorted(tags)[0]
        version = labels.newest(image_id, tag, system)
        kept = getattr(version, "annotated", None) or {}
        classes, slices = (None if kept.get(key) is None else tuple(kept[key]) for key in ("classes", "slices"))
        return StoredLabel(labels.file(version), version.system, Annotated(classes, slices, kept.get("axis", 2)))

    def _session_scan(self, request: Mapping[str, Any]) -> str | None:
        """The scan of a session, which MONAI Label's own server hands over as the path of its file."""
        image, sessions = request.get("image"), (self.options.state / "sessions").resolve()
        if request.get("session") and isinstance(image, str) and Path(image).resolve().is_relative_to(sessions):
            return image
        return None


def _check(options: Options, systems: Mapping[str, System]) -> None:
    """Refuse, before anything starts, options that name what is not there.

    Raises:
        ConfigError: If ``train_after`` names a system that is not served.
        UserError: If there is no such backend, or it cannot be used here.
    """
    for name, _ in options.train_after:
        if name and name not in systems:
            raise ConfigError(f"--conf train_after: no system {name!r}; systems: {', '.join(systems)}")
    if options.backend != AUTO:
        require_backend(options.backend, torch.device(_device_of(options)))


def _device_of(options: Options) -> str:
    return options.device or ("cuda" if torch.cuda.is_available() else "cpu")


def _asked_images(request: Mapping[str, Any], store: Datastore) -> Sequence[str]:
    """Identifiers of the images that a batch inference is for; ``all`` where nothing else is asked for."""
    images, filters = request.get("images") or "all", (request.get("label_tag"), request.get("labels"))
    if not isinstance(images, str):
        return list(images)
    if images == "labeled":
        return list(store.get_labeled_images(*filters))
    return list(store.get_unlabeled_images(*filters) if images == "unlabeled" else store.list_images())
