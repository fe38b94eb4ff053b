"""What a client may set: known keys with harmless values; the app's own keys, such as paths, are out of reach."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from msklabel.errors import NotFound, UserError

INFER = frozenset(
    {"client_id", "device", "label_info", "label_tag", "save_label"}
    | {"result_compress", "result_dtype", "result_extension"}
    | {"background", "foreground", "points", "roi", "slices"}  # where the user clicked
)
TRAIN = frozenset({"client_id", "device", "gpus", "multi_gpu"})
SCORING = frozenset({"client_id", "y", "y_pred"})
STRATEGY = frozenset({"client_id", "label_tag", "labels", "model"})
BATCH_INFER = TRAIN | {"label_tag", "logging", "max_batch_size", "max_workers"}
LABEL = frozenset({"annotated", "client_id", "label_info", "model", "model_version", "system"})

_MOST_TEXT = 200
_ALIKE = 0.85
_TAG = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FORMS = {
    "device": re.compile(r"cpu|cuda(:\d{1,3})?"),
    "gpus": re.compile(r"all|\d{1,3}(,\d{1,3})*"),
    "label_tag": _TAG,
    "y": _TAG,
    "y_pred": _TAG,
    "logging": re.compile(r"DEBUG|INFO|WARNING|ERROR"),
    "result_extension": re.compile(r"(\.[A-Za-z0-9]{1,8}){1,2}"),
}


def choose_options(sent: Mapping[str, Any], allowed: Collection[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of a client's options those that it may set; others are left out.

    Args:
        sent: What came.
        allowed: Keys that this request takes.
        config: The options that the task itself advertises in ``/info/``, with their defaults.

    Raises:
        UserError: If the value of a known option is not one that it can have.
    """
    return {key: _checked(key, sent[key], config) for key in sent if key in allowed or key in config}


def check_spelling(sent: Iterable[str], known: Collection[str]) -> None:
    """Refuse a key that is nearly one that is known; others are of other servers, and are left out.

    Raises:
        UserError: If one is nearly right; says which it is like.
    """
    for key in sent:
        like = get_close_matches(key, known, 1, _ALIKE) if key not in known else []
        if like:
            raise UserError(f"there is no option {key[:_MOST_TEXT]!r}; is {like[0]} meant?")


def check_known(name: str, known: Iterable[str], what: str) -> None:
    """Check that there is a model, strategy or scoring method of this name.

    Raises:
        NotFound: If there is none; lists what there is.
    """
    names = list(known)
    if name not in names:
        raise NotFound(f"there is no {what} {name[:_MOST_TEXT]!r}; there is: {', '.join(names) or 'none'}")


def check_tag(tag: str) -> str:
    """The tag, if it can be one.

    Raises:
        UserError: If it is anything but 1 to 64 letters, digits, ``_`` or ``-``.
    """
    if not _TAG.fullmatch(tag):
        raise UserError(f"label tag {tag[:_MOST_TEXT]!r}: expected 1 to 64 letters, digits, '_' or '-'")
    return tag


def _checked(key: str, value: Any, config: Mapping[str, Any]) -> Any:
    if value is None:
        return None
    default = config.get(key)
    if isinstance(default, list) and default and not isinstance(value, list):
        known = {str(choice): choice for choice in default}  # 2 of a JSON object is the choice "2"
        if str(value) not in known:
            raise UserError(f"{key}: expected one of {', '.join(known)}, got {str(value)[:_MOST_TEXT]!r}")
        return known[str(value)]
    if isinstance(default, bool | int | float) and not isinstance(value, bool | int | float | str):
        raise UserError(f"{key}: expected {type(default).__name__}, got {type(value).__name__}")
    if isinstance(value, str):
        return _checked_text(key, value, default)
    return value


def _checked_text(key: str, value: str, default: Any) -> str:
    form = _FORMS.get(key)
    if form and not form.fullmatch(value):
        raise UserError(f"{key} {value[:_MOST_TEXT]!r}: not a value that it can have")
    if len(value) > _MOST_TEXT or not value.isprintable():
        raise UserError(f"{key}: expected at most {_MOST_TEXT} printable characters")
    if key != "client_id" and default != value and re.search(r"[/\\]|\.\.", value):
        raise UserError(f"{key} {value!r}: a path or an address cannot be given here")
    return value
