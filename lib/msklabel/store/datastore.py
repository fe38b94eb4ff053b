"""The store as MONAI Label's Datastore: the interface that its app, endpoints and tasks use."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore

from msklabel.errors import Conflict, UserError
from msklabel.imaging.names import plain_name, without_suffix
from msklabel.imaging.scan import ImageError
from msklabel.store.archive import Archives, write_archive
from msklabel.store.core import Store, TrainingPair
from msklabel.store.labels import FINAL, ORIGINAL, SUFFIX
from msklabel.store.leases import LEASE_S, in_turn
from msklabel.store.names import checked_tag
from msklabel.store.schema import Image, LabelVersion
from msklabel.store.slicer_review import KEY, reason_said, state_said
from msklabel.store.source import Source
from msklabel.system import System

logger = logging.getLogger(__name__)


class MskDatastore(Datastore):
    """A folder of studies with all versions of its labels; a label's id is its image's id.

    Where several systems have a label under one tag, the newest counts for what MONAI Label asks; the systems'
    own labels are reached through ``store`` and :meth:`training_pairs`.

    Args:
        studies: The user's images.
        state: Our own folder: database and label files.
        systems: The systems that labels can belong to, by name.
        models: Name of the system of each model name; left out: the systems' own names.
        database: URL of a PostgreSQL database; a SQLite file in ``state`` by default.
        lease_s: For how long a scan is given to an annotator.
    """

    def __init__(
        self,
        studies: Path,
        state: Path,
        systems: Mapping[str, System],
        models: Mapping[str, str] | None = None,
        database: str | None = None,
        lease_s: float = LEASE_S,
        source: Callable[[Path, list[str]], Source] | None = None,
    ) -> None:
        super().__init__()
        self._lease_s = lease_s
        self._archives = Archives()
        self.store = Store(Path(studies), Path(state), systems, models, database, source)
        self.store.open()

    def name(self) -> str:
        """Name of the whole store."""
        return self.store.setting("name", self.store.studies.name)

    def set_name(self, name: str) -> None:
        """Keep another name."""
        self.store.set_setting("name", name)

    def description(self) -> str:
        """Description of the whole store."""
        return self.store.setting("description", "Scans and their labels, with all versions")

    def set_description(self, description: str) -> None:
        """Keep another description."""
        self.store.set_setting("description", description)

    def datalist(self) -> list[dict[str, Any]]:
        """Paths of the image and of its newest final label, for each image that has one."""
        current = self.store.labels.current(FINAL)
        return [
            {"image": str(self.store.images.path(image.id)), "label": str(self.store.labels.file(version))}
            for version, image in current
        ]

    def training_pairs(self, system: str) -> list[TrainingPair]:
        """The newest final label of each scan for one system."""
        return self.store.training_pairs(system)

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        """Label id for each tag that the image has."""
        versions = self.store.labels.history(image_id)
        return {version.tag: image_id for version in versions if version.withdrawn is None}

    def get_label_by_image_id(self, image_id: str, tag: str) -> str:
        """Label id, or nothing where there is no such label."""
        return self.get_labels_by_image_id(image_id).get(checked_tag(tag), "")

    def get_image(self, image_id: str, params: Any = None) -> io.BytesIO:
        """Bytes of an image file."""
        path = self.store.images.path(image_id)
        if path.is_dir():
            raise Conflict(f"image {image_id!r} is a folder of DICOM files, not one file")
        return io.BytesIO(path.read_bytes())

    def is_readable(self, image_id: str) -> bool:
        """Whether the image can be read; the first time it is, later its file's size and date are looked at."""
        try:
            self.store.images.grid(image_id)
            if self.store.source.takes_uploads:  # a PACS is asked for it later, where somebody wants it
                self.store.images.path(image_id)
        except ImageError:  # the log has it once
            return False
        except UserError as error:
            logger.warning("%s is passed over: %s", image_id, error)
            return False
        return True

    def get_image_uri(self, image_id: str) -> str:
        """Absolute path of an image file or series folder."""
        return str(self.store.images.path(image_id))

    def get_label(self, label_id: str, label_tag: str, params: Any = None) -> io.BytesIO:
        """Bytes of the newest label file."""
        return io.BytesIO(Path(self.get_label_uri(label_id, label_tag)).read_bytes())

    def get_label_uri(self, label_id: str, label_tag: str, system: str | None = None) -> str:
        """Absolute path of the newest label file; it never changes."""
        return str(self.store.labels.file(self.store.labels.newest(label_id, checked_tag(label_tag), system)))

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """What is noted about an image, with its file name and path; no checksum, that would read the file."""
        image = self.store.images.get(image_id)
        if not self.store.source.takes_uploads:  # a PACS; its path would have to be fetched
            return _image_info(image)
        return {**_image_info(image), "path": str(self.store.studies / str(image.file))}

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """What is noted about the newest version of a label, and what was measured of it as soon as it was."""
        version = self.store.labels.newest(label_id, checked_tag(label_tag))
        found = self.store.quantities.of_versions([version.id]).get(version.id)
        return {**self._label_info(version), **({"quantities": found.measured} if found and found.measured else {})}

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Images with a label of the tag (``final``), of a system that has all of ``labels`` where these are given."""
        labelled = self._labelled(label_tag, labels)
        return [image_id for image_id in self.store.images.ids() if image_id in labelled]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """The other images."""
        labelled = self._labelled(label_tag, labels)
        return [image_id for image_id in self.store.images.ids() if image_id not in labelled]

    def list_images(self) -> list[str]:
        """Ids of the images that are there."""
        return self.store.images.ids()

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """Path of a temporary ZIP file of final labels with their images."""
        return str(self._archives.add(write_archive(self.store, self.json(), limit_cases)))

    def refresh(self) -> None:
        """Read the folder of studies now."""
        self.store.images.refresh()

    def add_image(self, image_id: str | None, image_filename: str, image_info: dict[str, Any] | None) -> str:
        """Put an uploaded image into the folder of studies."""
        return self.store.images.add(image_id, Path(image_filename), image_info or {})

    def remove_image(self, image_id: str) -> None:
        """Remove an uploaded image; the user's own files are never deleted."""
        self.store.images.remove(image_id)

    def take_next(
        self,
        candidates: Iterable[str],
        holder: str | None,
        label_tag: str | None = None,
        labels: list[str] | None = None,
        systems: Iterable[str] | None = None,
        whole: bool = False,
        fitting: Collection[str] = (),
    ) -> str | None:
        """Give a scan to an annotator for a time, so that nobody else gets it; activity renews the time.

        Args:
            candidates: Image ids, the most wanted first; read as far as needed. What the holder has to mend comes
                first, what he skipped last.
            holder: Who gets it; None reserves nothing, and is given nothing that is with somebody.
            label_tag: With ``labels``: what counts as labelled, as in :meth:`get_unlabeled_images`.
            labels: See ``label_tag``.
            systems: Instead of ``labels``: names of the systems whose label counts.
            whole: Whether a scan of which some slices are labelled can be given.
            fitting: Names of systems of which one must be able to use the scan, where any are given.

        Returns:
            The first that is free or the holder's own, can be read and used, and was not labelled meanwhile; None if
            none is.
        """
        leases = self.store.leases
        mine = self.store.labels.to_mend(holder, checked_tag(label_tag or FINAL)) if holder else set()
        order = in_turn(candidates, mine, leases.skipped(holder) if holder else set())
        tag, counting = self._kind(label_tag, labels)
        counting = list(systems) if systems is not None else counting
        while chosen := self._take(order, holder):
            usable = self.is_readable(chosen) and (not fitting or set(fitting) - self.store.unfit(chosen).keys())
            if usable and not self.store.labels.is_finished(chosen, tag, counting, whole):
                return chosen
            if holder:
                leases.release(chosen, holder)
        return None

    def save_label(
        self,
        image_id: str,
        label_filename: str,
        label_tag: str,
        label_info: dict[str, Any] | None,
        holder: str | None = None,
    ) -> str:
        """Check and store a label as a new version; on disk when this returns. See :meth:`submit`."""
        return self.submit(image_id, Path(label_filename), label_tag, label_info or {}, holder).image_id

    def submit(
        self,
        image_id: str,
        file: Path,
        tag: str,
        info: dict[str, Any],
        holder: str | None = None,
        opened: int | None = None,
    ) -> LabelVersion:
        """Check and store a label, and say what became of it; see :meth:`Store.submit`."""
        return self.store.submit(image_id, file, tag, info, holder=holder, opened=opened)

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Mark the newest label and its earlier versions as removed."""
        self.store.withdraw(label_id, label_tag)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Note more about an image."""
        self.store.images.merge_info(image_id, info)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Note more about the newest version of a label; a verdict of 3D Slicer's reviewer module is a review."""
        version = self.store.labels.merge_info(label_id, checked_tag(label_tag), info)
        state = state_said(info)
        if state and state != version.state:
            reason = reason_said(info) if state == "rejected" else None
            who = info.get("user") or info[KEY].get("approvedBy") or None
            self.store.reviews.add(version.id, state, reason, who, noted=True)

    def status(self) -> dict[str, Any]:
        """Number of images, of those with a final label, of labels by tag, and of final labels by system."""
        counts = self.store.labels.counts()
        return {
            "total": len(self.store.images.ids()),
            "completed": len(self.get_labeled_images()),
            "label_tags": {tag: number for (tag, system), number in counts.items() if not system},
            "systems": {name: counts.get((FINAL, name), 0) for name in self.store.systems},
        }

    def json(self) -> dict[str, Any]:
        """Images and their newest labels in the form of MONAI Label's ``datastore_v2.json``."""
        objects = {
            image.id: {"image": {"ext": _suffix(image), "info": _image_info(image)}, "labels": {}}
            for image in self.store.all_images()
        }
        for version, image in self.store.labels.current():
            if image.id in objects:
                label = {"ext": SUFFIX, "info": self._label_info(version)}
                objects[image.id]["labels"][version.tag] = label
        return {
            "name": self.name(),
            "description": self.description(),
            "images_dir": ".",
            "labels_dir": "labels",
            "objects": objects,
        }

    def _take(self, order: Iterator[str], holder: str | None) -> str | None:
        if holder:
            return self.store.leases.take(order, holder, self._lease_s)
        held = self.store.leases.held()
        return next((image_id for image_id in order if image_id not in held), None)

    def _labelled(self, tag: str | None, labels: list[str] | None) -> set[str]:
        return self.store.labels.finished(*self._kind(tag, labels))

    def _kind(self, tag: str | None, labels: list[str] | None) -> tuple[str, list[str] | None]:
        """The tag, and the systems that have all of some labels."""
        systems = self.store.systems.items() if labels else ()
        fitting = [name for name, system in systems if set(labels or ()) <= system.labels.keys()]
        return checked_tag(tag or FINAL), fitting if labels else None

    def _label_info(self, version: LabelVersion) -> dict[str, Any]:
        """Noted facts, and names with the values that the stored voxels have.

        3D Slicer takes the n-th of ``params.label_names`` for the value n, so all labels of the system are listed, in
        order of value, whether they occur or not.
        """
        info = {**version.info, "name": f"{version.image_id.rpartition('/')[2]}{SUFFIX}"}
        info |= {"ts": int(version.created.timestamp()), "version": version.id, "system": version.system}
        info |= {"author": version.author, "origin": version.origin, "sha256": version.sha256, "state": version.state}
        info |= {"warnings": version.warnings} if version.warnings else {}
        info |= {"annotated": version.annotated} if version.annotated else {}
        if system := self.store.systems.get(version.system):
            indices = system.label_indices
            info["label_info"] = [{"name": name, "idx": indices[name]} for name in version.classes if name in indices]
            if version.tag == ORIGINAL or "params" in info:
                params = info.get("params")
                info["params"] = {**(params if isinstance(params, dict) else {}), "label_names": indices}
        return info


def _suffix(image: Image) -> str:
    name = _name(image)
    return name[len(without_suffix(name)) :]


def _image_info(image: Image) -> dict[str, Any]:
    """What is noted, with ``ts`` and ``name`` (under which 3D Slicer opens a download) as MONAI Label has them."""
    return {**image.info, "name": plain_name(_name(image)), "ts": int(image.created.timestamp())}


def _name(image: Image) -> str:
    return str(image.file).rpartition("/")[2]
