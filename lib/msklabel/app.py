"""The MONAI Label app: its tasks, built from Systems."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.utils.sessions import Sessions

from msklabel import __version__
from msklabel.choose.heatmap import heatmap_png
from msklabel.choose.task import DEFAULT, strategies
from msklabel.errors import NotFound
from msklabel.kept_sessions import KeptSessions
from msklabel.learn.task import SystemTrainTask
from msklabel.networks import build_network
from msklabel.predict.source import read_for
from msklabel.predict.task import INTERPOLATE, ModelTask
from msklabel.work import Work

logger = logging.getLogger(__name__)
_SESSION_SECONDS = 3600


class MskLabelApp(Work, MONAILabelApp):
    """Serves every System it is given; knows none of them by name.

    Args:
        app_dir: Folder of the app's ``main.py``.
        studies: Folder of the user's images, or address of a DICOMweb server.
        conf: ``--conf`` keys and values, see :mod:`msklabel.options`.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str] | None = None) -> None:
        conf = dict(conf or {})
        self.configure(studies, conf)
        for system in self.systems.values():
            build_network(system)
        self.given_studies = studies
        MONAILabelApp.__init__(
            self,
            app_dir=app_dir,
            studies=str(self.options.studies),
            conf=conf,
            name="msklabel",
            description="Active learning for hip and thigh imaging. Not for clinical use.",
            version=__version__,
        )
        self._auto_update_scoring = False  # would start a process for every scan that is asked for
        for served in self.systems:
            if name := self.versions.finish(served):
                logger.info("%s: version %s is in service, as its training was cut off before that", served, name)

    def init_strategies(self) -> dict[str, Strategy]:
        """All strategies."""
        return strategies(self.choosers)

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

    def ready(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """The answer to :meth:`infer` where it was predicted ahead; None where it has to be computed."""
        task, image = self._infers.get(str(request.get("model"))), request.get("image")
        if not isinstance(task, ModelTask) or request.get("save_label") or not isinstance(image, str):
            return None
        found = task.ready({**request, "image": self.datastore().get_image_uri(image)})
        return {"file": found[0], "params": found[1]} if found else None

    def behind(self) -> dict[str, bool]:
        """Models whose version in service can be loaded ahead, and whether another version answers meanwhile."""
        models = {name: task.model for name, task in self._infers.items() if isinstance(task, ModelTask)}
        return {name: model.can_replace for name, model in models.items() if model.behind}

    def load(self, model: str) -> None:
        """Load the version of a model that is in service.

        Raises:
            UserError: If there is none, or its weights do not fit.
        """
        task = self._infers.get(model)
        if isinstance(task, ModelTask):
            task.model.load()

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

    def check_training(self, system: str, options: Mapping[str, Any]) -> None:
        """Refuse options that a training of a system could only fail on.

        Raises:
            UserError: If one has a value that it cannot have.
            NotFound: If there is no such version to start from.
        """
        task = self._trainers.get(system)
        if isinstance(task, SystemTrainTask):
            task.check(options)

    def _load_sessions(self, load: bool = False) -> Sessions | None:
        return KeptSessions(self.options.state / "sessions", _SESSION_SECONDS) if load else None

    def cleanup_sessions(self) -> None:
        """Remove the sessions that have expired; MONAI Label forgets those of the server before."""
        if self._sessions is not None:
            self._sessions.remove_expired()
