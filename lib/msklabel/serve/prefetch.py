"""Loads models, and predicts the scans that annotators have or get next, while nobody waits.

So *Segment* answers at once.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from msklabel.errors import UserError
from msklabel.jobs.inference_queue import let_others_first
from msklabel.jobs.precedence import Precedence
from msklabel.predict.progress import reported

if TYPE_CHECKING:
    from msklabel.app import MskLabelApp

logger = logging.getLogger(__name__)
_LOOK_S = 2.0
_QUESTIONS = 8  # last ways in which scans were asked for, which are looked at
_OF_3D_SLICER = ".nrrd"


class _Interrupted(Exception):
    """Somebody waits for an inference, or the server ends."""


class Prefetch:
    """A thread that loads models and predicts ahead; an inference that is asked for ends it between two windows.

    Args:
        app: Predicts.
        precedence: Held meanwhile, so that scoring waits.
        waiting: Says whether an inference runs or waits.
        scans: How many scans ahead of each way in which they are asked for; 0 for none.
    """

    def __init__(self, app: MskLabelApp, precedence: Precedence, waiting: Callable[[], bool], scans: int) -> None:
        self._app = app
        self._precedence = precedence
        self._waiting = waiting
        self._scans = scans
        self._lock = threading.Lock()
        self._asked: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._suffix = _OF_3D_SLICER
        self._begun = False
        self._failed: set[tuple[str, str, str | None]] = set()  # model, scan or nothing, version
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        if self._scans:
            self._thread.start()

    def close(self) -> None:
        """End the thread, at the next window."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(30)

    def asked(self, request: Mapping[str, Any]) -> None:
        """Somebody got a scan: what he has, and what follows in the same order, is likely wanted."""
        kind = {key: value for key, value in request.items() if key != "client_id"}
        with self._lock:
            self._asked[repr(sorted(kind.items(), key=str))] = kind
            while len(self._asked) > _QUESTIONS:
                self._asked.popitem(last=False)
        self._wake.set()

    def answered(self, request: Mapping[str, Any]) -> None:
        """Somebody asked for a segmentation: the next ones are made in the same format."""
        self._suffix = str(request.get("result_extension") or self._suffix)

    def _run(self) -> None:
        let_others_first()
        while not self._stop.is_set():
            self._wake.wait(_LOOK_S)
            self._wake.clear()
            try:
                self._look()
            except _Interrupted:
                continue
            except Exception:  # the thread must outlive a database that is locked or a folder that is not there
                logger.exception("could not predict ahead")

    def _look(self) -> None:
        with self._lock:
            asked = list(self._asked.values())
        if not self._begun:
            self._check()
            self._begun = True
            self._app.likely_next({}, 0)  # reads what all scans were found to be, which takes seconds for ten thousand
        for model, another_answers in self._app.behind().items():
            if not another_answers:
                self._check()
            self._load(model)
        for request in asked:
            self._check()  # what is next takes time to find out
            for model, image in self._app.likely_next(request, self._scans):
                self._check()
                self._predict(model, image)

    def _load(self, model: str) -> None:
        failed = model, "", self._app.serving(model)
        if failed in self._failed:
            return
        try:
            with self._precedence.held(), reported(lambda *_: self._check_stop()):
                self._app.load(model)
            logger.info("%s: version %s is ready", model, failed[2])
        except _Interrupted:
            raise
        except Exception as error:  # whoever asks for a segmentation is told
            logger.warning("%s: version %s cannot be loaded: %s", model, failed[2], error)
            self._failed.add(failed)

    def _predict(self, model: str, image: str) -> None:
        request = {"model": model, "image": image, "result_extension": self._suffix}
        failed = model, image, self._app.serving(model)
        if failed in self._failed or not self._app.lacks(request):
            return
        try:
            with self._precedence.held(), reported(lambda *_: self._check()):
                self._app.predict_ahead(request)
            logger.info("%s: predicted ahead with %s", image, model)
        except UserError as error:
            logger.info("%s: not predicted ahead with %s: %s", image, model, error)
            self._failed.add(failed)

    def _check(self) -> None:
        self._check_stop()
        if self._waiting():
            raise _Interrupted

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise _Interrupted
