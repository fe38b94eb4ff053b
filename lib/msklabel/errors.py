"""Errors that are somebody's to mend: one sentence for them, and the HTTP status that a server answers with."""


class UserError(ValueError):
    """What was asked for cannot be done; the message is one sentence that says what is wrong."""

    status = 400


class NotFound(UserError):
    """There is no such image, label, model or session."""

    status = 404


class Conflict(UserError):
    """It cannot be done in the present state: a training already runs, a model has no weights yet."""

    status = 409


class ReadOnly(UserError):
    """Nothing can be stored at present: the database is damaged."""

    status = 503


class StorageFull(UserError):
    """The disk is full; nothing was written."""

    status = 507


class Unreachable(UserError):
    """Another server that is needed is down, slow or answers nonsense: 502, or 504 where it took too long."""

    def __init__(self, message: str, status: int = 502) -> None:
        super().__init__(message)
        self.status = status
