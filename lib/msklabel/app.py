"""The MONAI Label app: its tasks, built from Systems."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.batch_infer import BatchInferTask
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.sessions import Sessions

from msklabel import __version__
from msklabel.catalogue import load_catalogue
from msklabel.choose.heatmap import heatmap_png
from msklabel.choose.task import DEFAULT, Choosers, DiceScoring, SummaryScoring, strategies
from msklabel.errors import NotFound, UserError
from msklabel.imaging.annotated import Annotated
from msklabel.jobs.precedence import PRECEDENCE, waiter
from msklabel.learn.task import SystemTrainTask
from msklabel.learn.versions import Versions
from msklabel.networks import build_network
from msklabel.options import Options
from msklabel.predict.ahead import Ahead
from msklabel.predict.interpolate import StoredLabel
from msklabel.predict.selection import Selection
from msklabel.predict.served import ServedModel
from msklabel.predict.source import read_for
from msklabel.predict.task import INTERPOLATE, THRESHOLD_SUFFIX, ClassicalTask, InterpolateTask, ModelTask
from msklabel.store.datastore import MskDatastore
from msklabel.store.labels import FINAL, ORIGINAL
from msklabel.store.site import pacs_of, source_of

logger = logging.getLogger(__name__)
_SESSION_SECONDS = 3600
_MOST_AHEAD = 64  # segmentations; some hundred kilobytes each


class MskLabelApp(MONAILabelApp):
    """Serves every System it is given; knows none of them by name.

    Args:
        app_dir: Folder of the app's ``main.py``.
        studies: Folder of the user's images, or address of a DICOMweb server.
        conf: ``--conf`` keys and values, see :mod:`msklabel.options`.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str] | None = None) -> None:
        conf = dict(conf or {})
        self.options = Options.from_conf(studies, conf)
        self.systems = load_catalogue(self.options.configs, self.options.models, self.options.profile)
        for system in self.systems.values():
            build_network(system)
        self.versions = Versions(self.options.state / "models")
        self.given_studies = studies
        self.pacs = pacs_of(self.options)
        self.choosers = Choosers(self.versions)
        self.ahead = Ahead(self.options.state / "ahead", _MOST_AHEAD)
        super().__init__(
            app_dir=app_dir,
            studies=str(self.options.studies),
            conf=conf,
            name="msklabel",
            description="Active learning for hip and thigh imaging. Not for clinical use.",
            version=__version__,
        )
        self._auto_update_scoring = False  # would start a process for every scan that is asked for

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
            )
            for name, system in self.systems.items()
        }

    def init_strategies(self) -> dict[str, Strategy]:
        """All strategies."""
        return strategies(self.choosers)

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """All scoring methods."""
        device = self.options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        wait = waiter(self.options.state / PRECEDENCE)
        return {"dice": DiceScoring(), "summary": SummaryScoring(self.choosers, self.versions, device, wait)}

    def background(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Bring the scores up to date, a part at a time, while nobody waits for anything else."""
        result: dict[str, Any] = self.scoring({**request, "method": "summary"})
        return result

    def info(self) -> dict[str, Any]:
        """What clients list; models that can be used come first, because 3D Slicer runs the first one by itself."""
        info: dict[str, Any] = super().info()
        models: dict[str, dict[str, Any]] = info["models"]
        untrained = [name for name, model in models.items() if model.get("version", "") is None]
        info["models"] = {
            name: models[name] for name in sorted(models, key=lambda name: (name == INTERPOLATE, name in untrained))
        }
        return info

    def next_sample(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Choose the next scan to annotate.

        Args:
            request: ``strategy``, and its options.

        Returns:
            ``id`` and ``path`` of the scan; empty where all is labelled.

        Raises:
            NotFound: If there is no such strategy.
        """
        name = str(request.get("strategy") or DEFAULT)
        strategy = self._strategies.get(name)
        if strategy is None:
            raise NotFound(f"there is no strategy {name!r}; strategies: {', '.join(self._strategies)}")
        chosen = strategy(request, self.datastore())
        return {**chosen, "path": self.datastore().get_image_uri(chosen["id"])} if chosen else {}

    def scores_progress(self) -> dict[str, dict[str, Any]]:
        """How far the scores of each system are up to date."""
        store: Any = self.datastore()
        return self.choosers(store.store).progress()

    def heatmap(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Draw a slice of a scan with the uncertainty of a model on it.

        Args:
            request: ``heatmap``, name of the model; ``image``, a path that the caller vouches for; ``slice``.

        Returns:
            ``png``, the picture.

        Raises:
            NotFound: If there is no such model, or it is none that is trained.
            UserError: If the scan does not fit, or there is no such slice.
        """
        task = self._infers.get(str(request["heatmap"]))
        if not isinstance(task, ModelTask):
            named = [name for name, known in self._infers.items() if isinstance(known, ModelTask)]
            raise NotFound(f"there is no trained model {request['heatmap']!r}; models: {', '.join(named)}")
        scan = read_for(task.system, request["image"])
        return {"png": task.model.apply(lambda engine: heatmap_png(engine, scan, int(request.get("slice", -1))))}

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
            label = store.save_label(request["image"], result, tag, info)
        return {"label": label, "tag": tag, "file": result, "params": params}

    def ready(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """The answer to :meth:`infer` where it was predicted ahead; None where it has to be computed."""
        task, image = self._infers.get(str(request.get("model"))), request.get("image")
        if not isinstance(task, ModelTask) or request.get("save_label") or not isinstance(image, str):
            return None
        found = task.ready({**request, "image": self.datastore().get_image_uri(image)})
        return {"file": found[0], "params": found[1]} if found else None

    def likely_next(self, request: Mapping[str, Any], most: int) -> list[tuple[str, str]]:
        """Models and scans of which a segmentation is likely wanted soon.

        Args:
            request: How scans are asked for: ``strategy``, and its options.
            most: Scans beyond those that annotators have.

        Returns:
            Names of models with identifiers of scans, the scans that somebody has first.
        """
        store: Any = self.datastore()
        chooser = self.choosers(store.store)
        wanted = chooser.wanted(request)
        held = list(store.store.leases.held())
        pool = chooser.pool(wanted)
        ranked = chooser.rank(str(request.get("strategy") or DEFAULT), pool, request)
        scans = [*held, *(pool.ids[place] for place in ranked.places[:most])]
        trained = [name for name in wanted.systems if self.versions.serving(name)]
        fitting = {name: pool.fits[name] for name in trained}
        places = {image: place for place, image in enumerate(pool.ids)}
        return [
            (name, image)
            for image in dict.fromkeys(scans)
            for name in trained
            if image in places and bool(fitting[name][places[image]])
        ]

    def serving(self, model: str) -> str | None:
        """Name of the version of a model that is in service; None while there is none."""
        return self.versions.serving(model)

    def lacks(self, request: Mapping[str, Any]) -> bool:
        """Whether a segmentation could be made ahead, and is not."""
        task = self._infers.get(str(request["model"]))
        scan = {**request, "image": self.datastore().get_image_uri(request["image"])}
        return isinstance(task, ModelTask) and task.lacks(scan)

    def predict_ahead(self, request: Mapping[str, Any]) -> None:
        """Make a segmentation before anybody asks.

        Args:
            request: As for :meth:`infer`.

        Raises:
            UserError: If the scan does not fit the model.
        """
        task = self._infers.get(str(request["model"]))
        if isinstance(task, ModelTask):
            task.segment_ahead({**request, "image": self.datastore().get_image_uri(request["image"])})

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
        images = sorted(BatchInferTask().get_images(request, store))[: request.get("max_batch_size") or None]
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

    def check_training(self, system: str, options: Mapping[str, Any]) -> None:
        """Refuse options that a training of a system could only fail on.

        Raises:
            UserError: If one has a value that it cannot have.
            NotFound: If there is no such version to start from.
        """
        task = self._trainers.get(system)
        if isinstance(task, SystemTrainTask):
            task.check(options)

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
        task = self._trainers.get(system)
        if not isinstance(task, SystemTrainTask):
            raise NotFound(f"there is no system {system!r}; systems: {', '.join(self._trainers)}")
        return task.compare(a, b, measure)

    def _session_scan(self, request: Mapping[str, Any]) -> str | None:
        """The scan of a session, which MONAI Label's own server hands over as the path of its file."""
        image, sessions = request.get("image"), (self.options.state / "sessions").resolve()
        if request.get("session") and isinstance(image, str) and Path(image).resolve().is_relative_to(sessions):
            return image
        return None

    def _load_sessions(self, load: bool = False) -> Sessions | None:
        folder = self.options.state / "sessions"
        return Sessions(str(folder), _SESSION_SECONDS) if load else None
