"""What can go wrong in this room, and how it is told: in one line, without SQL, parameters or passwords."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError

# lock_not_available, deadlock_detected, serialization_failure: another session was in the way.
_LOCK_TROUBLE = {"55P03", "40P01", "40001"}


class MigrationError(Exception):
    """An upgrade cannot be completed."""


class SchemaConflict(MigrationError):
    """The database has something of ours by name that is not ours by shape."""


class RowsLost(MigrationError):
    """A table has fewer rows after the upgrade than before it."""


class Refused(MigrationError):
    """Going on would put at risk what is there."""


class TimedOut(MigrationError):
    """Nobody gave a sign of life for MIGRATION_TIMEOUT seconds."""


def one_line(error: BaseException) -> str:
    """What went wrong, for people. SQLAlchemy's own text would carry SQL and parameters."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    text = " ".join(str(error).split("\n")[0].split())
    return text if isinstance(error, MigrationError) and text else f"{type(error).__name__}: {text}"[:500]


def is_lock_trouble(error: BaseException) -> bool:
    """Would the same statement succeed a little later?"""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _LOCK_TROUBLE


def is_busy(error: BaseException) -> bool:
    """Is another connection writing to this SQLite file?"""
    name = str(getattr(getattr(error, "orig", None), "sqlite_errorname", ""))
    return name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
