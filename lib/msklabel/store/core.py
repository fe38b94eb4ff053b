"""The store: images and label versions of one studies folder, for the server, for training and for scripts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from sqlalchemy import select

from msklabel.errors import NotFound, UserError
from msklabel.imaging import LabelMap, same_grid
from msklabel.imaging.annotated import Annotated
from msklabel.imaging.radiograph import viewer_affine
from msklabel.imaging.read import read_labels
from msklabel.store.annotation import annotated_of, check_inside, read_annotated
from msklabel.store.audit import Audit, add_event, events
from msklabel.store.carry import NOTED, add_to_earlier
from msklabel.store.damage import damage_of, salvage
from msklabel.store.database import Database
from msklabel.store.existing import import_folder
from msklabel.store.fit import ChangedImage, changed_images, patient_of, reasons_against
from msklabel.store.headers import check_self_contained, segment_names
from msklabel.store.images import Grid, Images
from msklabel.store.jobs import Jobs
from msklabel.store.labels import FINAL, ORIGINAL, Labels, Submission
from msklabel.store.leases import Leases
from msklabel.store.names import checked_info, checked_tag
from msklabel.store.quantities import Quantities
from msklabel.store.reviews import Reviews
from msklabel.store.schema import Image, LabelVersion, Setting
from msklabel.store.scores import Scores
from msklabel.store.sides import exchanged_pairs, looks_mirrored
from msklabel.store.source import FolderSource, Source
from msklabel.store.splits import Splits
from msklabel.store.values import Hints, indices_in, stated, system_of, value_names
from msklabel.store.view import IMPORTED, View
from msklabel.system import System

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingPair:
    """A scan and its finished label for one system.

    Attributes:
        patient: What a split must keep together.
        locate: Gives the path of the scan; from a PACS it is fetched where it is not there.
        site: Where the scan was made, where that is known.
        annotated: What of the scan the label speaks of; the rest is unknown.
        state: ``submitted``, or ``accepted`` by a reviewer.
    """

    image_id: str
    patient: str
    locate: Callable[[], Path]
    label: Path
    sha256: str
    site: str | None
    version_id: int
    annotated: Annotated
    state: str

    @property
    def image(self) -> Path:
        """Path of the scan."""
        return self.locate()


class Store:
    """Images and labels of a studies folder; safe to use from many threads and processes.

    Args:
        studies: The user's images.
        state: Our own folder: database and label files.
        systems: The systems that labels can belong to, by name.
        models: Name of the system of each model name that a request may use; left out: the systems' own names.
        database: URL of a PostgreSQL database; a SQLite file in ``state`` by default.
        source: Makes the source of the images from ``studies`` and the names of channels; the folder by default.
    """

    def __init__(
        self,
        studies: Path,
        state: Path,
        systems: Mapping[str, System],
        models: Mapping[str, str] | None = None,
        database: str | None = None,
        source: Callable[[Path, list[str]], Source] | None = None,
    ) -> None:
        self.studies = studies.resolve()
        self.state = state.resolve()
        self.systems = dict(systems)
        self.models = {**{name: name for name in systems}, **(models or {})}
        self._database = Database(self.state / "msklabel.db", database)
        channels = {name for system in systems.values() if len(system.channels) > 1 for name in system.channels}
        folder = FolderSource(self.studies, (self.state,), sorted(channels))
        self.source: Source = source(self.studies, sorted(channels)) if source else folder
        self.images = Images(self._database, self.source, (self.state,), sorted(channels))
        self.labels = Labels(self._database, self.state / "labels")
        self.reviews = Reviews(self._database)
        self.leases = Leases(self._database)
        self.scores = Scores(self._database)
        self.splits = Splits(self._database)
        self.jobs = Jobs(self._database)
        self.quantities = Quantities(self._database)
        self._view = View(self.studies, self.state, self.labels)

    def one_view(self) -> AbstractContextManager[None]:
        """What this thread reads of the store in the block is of one moment; see :meth:`Database.one_view`."""
        return self._database.one_view()

    @property
    def read_only(self) -> str | None:
        """Why nothing can be stored; None where all is well."""
        return self._database.refused

    def open(self) -> None:
        """Make what is missing, read the folder, and import labels of an existing MONAI Label folder.

        With a damaged database, what can be read of it is served, and every attempt to store something is refused.

        Raises:
            UserError: If the state folder cannot be written.
            Conflict: If the database is of a newer version.
            Unreachable: If a PostgreSQL does not answer; nothing is made then.
        """
        self._database.require()
        try:
            (self.state / "labels").mkdir(parents=True, exist_ok=True)
            if not self.source.takes_uploads:
                self.studies.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.state / ".open.lock").acquire()
        except OSError as error:
            reason = f"the state folder {self.state} cannot be written ({error.strerror or error})"
            raise UserError(f"{reason}; give another place by --conf state DIR") from error
        with lock:
            if self._database.is_sqlite and (damage := damage_of(self._database.file, self.state / "labels")):
                self._open_read_only(damage)
                return
            self._database.create()
            self.labels.tidy()
            self.images.refresh()
            import_folder(self)
            self._view.rebuild()

    def _open_read_only(self, damage: str) -> None:
        """Go on with a copy of what can be read, in a temporary file."""
        file = self._database.file
        copy = self._database.fall_back()
        self._database.create()
        salvage(file, copy)
        self.images.refresh()
        self._database.refused = (
            f"the database {file} is damaged ({damage}), so nothing can be stored: stop the server and run "
            f"'msklabel restore BACKUP --studies {self.studies} --state {self.state}'"
        )
        logger.error(self._database.refused)

    def submit(
        self,
        image_id: str,
        file: Path,
        tag: str,
        info: Mapping[str, Any],
        origin: str | None = None,
        holder: str | None = None,
        opened: int | None = None,
    ) -> LabelVersion:
        """Check a label and store it as a new version; it is on disk when this returns.

        A label that names its slices keeps the other slices of the newest version that counts: see
        :mod:`msklabel.store.carry`.

        Args:
            image_id: The scan.
            file: The label in any format that can be read.
            tag: ``final``, ``original`` or another.
            info: The request's parameters: ``model``, ``label_info``, ``client_id``, ``annotated`` (see
                :func:`msklabel.store.annotation.read_annotated`), and what else is to be noted.
            origin: See :class:`Submission`.
            holder: Whose lease on the scan ends with it; the author's by default.
            opened: Version that its author began with, 0 for none; by default it follows whatever is there.

        Raises:
            UserError: If it cannot be right; nothing is stored.
            Conflict: If another one was stored since ``opened``.
        """
        own = {key: value for key, value in checked_info(info).items() if key not in (IMPORTED, NOTED)}
        submission = self.check(image_id, file, tag, own, origin)
        if submission.tag != ORIGINAL:
            submission = replace(submission, holder=holder or submission.author)
        version = add_to_earlier(self.labels, submission, self.systems[submission.system], opened)
        self._view.refresh(image_id, version.tag)
        return version

    def check(
        self, image_id: str, file: Path, tag: str, info: Mapping[str, Any], origin: str | None = None
    ) -> Submission:
        """Check a label as :meth:`submit` does, and bring its voxels to the indices of its system.

        Raises:
            UserError: If it cannot be right.
        """
        tag = checked_tag(tag)
        grid = self.images.grid(image_id)
        check_self_contained(file)
        labels = read_labels(file)
        labels = _placed(labels, grid, partial(self.images.path, image_id))
        system, labels, classes = self._in_scheme(self.images.get(image_id), labels, segment_names(file), info)
        annotated = read_annotated(info.get("annotated"), system, grid.shape)
        check_inside(annotated, labels.array, classes)
        params = info.get("params")
        model_version = info.get("model_version") or (params.get("model_version") if isinstance(params, dict) else None)
        return Submission(
            image_id=image_id,
            tag=tag,
            system=system.name,
            labels=labels,
            classes=classes,
            annotated=annotated,
            warnings=[*self._sides(image_id, tag, system, labels), *self._of_no_use(image_id, system)],
            author=_text(info.get("author") or info.get("user") or info.get("client_id")),
            origin=origin,
            base_model=_text(model_version),
            info={key: value for key, value in info.items() if key != "annotated"},
        )

    def withdraw(self, image_id: str, tag: str, system: str | None = None) -> None:
        """Remove a label: its versions are marked, an older label of another system counts again."""
        self.labels.withdraw(image_id, checked_tag(tag), system)
        self._view.refresh(image_id, tag)

    def training_pairs(self, system: str) -> list[TrainingPair]:
        """The newest finished label of each scan that is there, for one system, by image id; no rejected one."""
        return [
            TrainingPair(
                image_id=image.id,
                patient=patient_of(image.id, image.patient, image.info),
                locate=partial(self.images.path, image.id),
                label=self.labels.file(version),
                sha256=version.sha256,
                site=str(image.info["site"]) if image.info.get("site") else image.site,
                version_id=version.id,
                annotated=annotated_of(version),
                state="accepted" if version.state == "accepted" else "submitted",
            )
            for version, image in self.labels.current(FINAL, system, rejected=False)
        ]

    def roles(self, system: str) -> dict[str, str]:
        """``train`` or ``validation`` for each patient for which a system's split is decided."""
        return self.splits.roles(system)

    def assign_roles(self, system: str, roles: Mapping[str, str]) -> dict[str, str]:
        """Decide the roles of patients, for good; see :meth:`Splits.assign`."""
        return self.splits.assign(system, roles)

    def note(self, event: str, who: str | None = None, **facts: Any) -> None:
        """Add a line to the audit trail."""
        with self._database.write() as session:
            add_event(session, event, who, facts)

    def audit(self, event: str | None = None, newest: int | None = None) -> list[Audit]:
        """Lines of the audit trail, oldest first; of one event, or the last so many only."""
        return events(self._database, event, newest)

    def all_images(self) -> list[Image]:
        """What is recorded of the images that are there, by id."""
        self.images.glance()
        with self._database.read() as session:
            return list(session.scalars(select(Image).where(Image.present).order_by(Image.id)))

    def changed_images(self, since_us: int) -> list[ChangedImage]:
        """What is known of the images that were written after an instant (µs since 1970; -1 for all)."""
        self.images.glance()
        return changed_images(self._database, since_us, self.systems)

    def unfit(self, image_id: str) -> dict[str, str]:
        """The systems that cannot use an image, as far as it is known, each with the reason."""
        return reasons_against(self.images.get(image_id), self.systems)

    def setting(self, key: str, default: str) -> str:
        """A value that belongs to the whole store."""
        with self._database.read() as session:
            row = session.get(Setting, key)
        return row.value if row else default

    def settings(self, prefix: str) -> dict[str, str]:
        """The values whose keys begin alike, by the rest of the key."""
        query = select(Setting).where(Setting.key.startswith(prefix, autoescape=True)).order_by(Setting.key)
        with self._database.read() as session:
            return {row.key.removeprefix(prefix): row.value for row in session.scalars(query)}

    def set_setting(self, key: str, value: str) -> None:
        """Keep a value that belongs to the whole store."""
        with self._database.write() as session:
            session.merge(Setting(key=key, value=str(value)))

    def _in_scheme(
        self, image: Image, labels: LabelMap, header: Mapping[int, str] | None, info: Mapping[str, Any]
    ) -> tuple[System, LabelMap, list[str]]:
        """The system of a label, the label in the indices of that system, and the names that occur in it."""
        present = labels.present()
        some = bool(info.get("annotated"))  # slices in which there is nothing may follow others
        if not present and not some:
            raise UserError("the label is empty: no voxel is labelled")
        said = stated(info.get("label_info"))
        hints = Hints(image.info.get("modality") or image.modality, self._proposed(image))
        system = system_of(info, value_names(present, said, header), self.systems, self.models, hints)
        indices = indices_in(system, present, said, header)
        if not any(indices.values()) and not some:
            raise UserError("the label is empty: only background is labelled")
        classes = [name for name, index in system.label_indices.items() if index in indices.values()]
        if any(value != index for value, index in indices.items()):
            table = np.zeros(256, np.uint8)
            table[list(indices)] = list(indices.values())
            labels = LabelMap(table[labels.array], labels.affine)
        return system, labels, classes

    def _sides(self, image_id: str, tag: str, system: System, labels: LabelMap) -> list[str]:
        """What looks wrong about left and right, in sentences."""
        pairs = exchanged_pairs(labels.array, labels.affine, system.label_indices)
        found = [f"{left!r} lies to the right of {right!r}: are the sides exchanged?" for left, right in pairs]
        drafts = [] if tag == ORIGINAL else self.labels.history(image_id, ORIGINAL, system.name)
        with suppress(OSError, UserError):  # a draft that cannot be read tells nothing
            if drafts and looks_mirrored(labels.array, read_labels(self.labels.file(drafts[-1])).array, labels.affine):
                found.append("the label agrees far better with the automatic one when left and right are exchanged")
        return found

    def _of_no_use(self, image_id: str, system: System) -> list[str]:
        """That a label is kept, and that no model can learn from it, where the scan is none of its system."""
        reason = self.unfit(image_id).get(system.name)
        return [f"no model can learn from this label, as the scan does not fit: {reason}"] if reason else []

    def _proposed(self, image: Image) -> str | None:
        """System of the newest automatic label, else the one that was noted when a model was run on the image."""
        try:
            return self.labels.newest(image.id, ORIGINAL).system
        except NotFound:
            return image.info.get("system")


def _placed(labels: LabelMap, scan: Grid, locate: Callable[[], Path]) -> LabelMap:
    """The label on the grid of its scan.

    On a radiograph whose pixel size is noted beside it, or corrected for magnification, viewers draw in a grid of
    another pixel size; a label that lies exactly there lies on the scan, pixel by pixel. Nor do all know how thick a
    single slice is.

    Raises:
        UserError: If it does not lie on the voxels of its scan.
    """
    got = Grid(labels.array.shape, labels.affine)
    if same_grid(got.shape, got.affine, scan.shape, scan.affine):
        return labels if scan.shape[2] > 1 else LabelMap(labels.array, scan.affine)
    seen = viewer_affine(locate()) if scan.shape[2] == 1 else None
    if seen is not None and same_grid(got.shape, got.affine, scan.shape, seen):
        return LabelMap(labels.array, scan.affine)
    if str(got) != str(scan):
        raise UserError(f"the label does not lie on its scan: expected {scan}, got {got}")
    wanted, given = (" ".join(f"{number:.4g}" for number in grid.affine[:3].ravel()) for grid in (scan, got))
    raise UserError(f"the label does not lie on its scan: expected the matrix to RAS mm {wanted}, got {given}")


def _text(value: Any) -> str | None:
    return str(value)[:200] if value is not None and value != "" else None
