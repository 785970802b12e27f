"""One tree of errors. A docstring is the default message; `web.errors` alone knows HTTP statuses."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Kind(StrEnum):
    """What a caller can do about it; each maps to one HTTP status."""

    MALFORMED = "malformed_request"
    UNAUTHENTICATED = "unauthenticated"
    UNPAID = "payment_required"
    FORBIDDEN = "permission_denied"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    TOO_LARGE = "request_too_large"
    INVALID = "invalid_request"
    LIMITED = "rate_limited"
    UNAVAILABLE = "unavailable"


class AppError(Exception):
    """Something went wrong on our side."""

    kind: ClassVar[Kind] = Kind.UNAVAILABLE
    code: ClassVar[str] = "internal"

    def __init__(
        self, message: str = "", *, param: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message or self.__doc__)
        self.param = param
        self.retry_after_s = retry_after_s


class MalformedRequest(AppError):
    """The body is not valid JSON."""

    kind = Kind.MALFORMED
    code = "malformed_request"


class Unauthenticated(AppError):
    """A valid token is required: send `Authorization: Bearer <token>`."""

    kind = Kind.UNAUTHENTICATED
    code = "unauthenticated"


class WrongCredentials(AppError):
    """Wrong e-mail or password."""

    kind = Kind.UNAUTHENTICATED
    code = "wrong_credentials"


class BadSignature(AppError):
    """The signature of this callback is missing, wrong or too old."""

    kind = Kind.UNAUTHENTICATED
    code = "bad_signature"


class InsufficientCredits(AppError):
    """There are too few credits for this job."""

    kind = Kind.UNPAID
    code = "insufficient_credits"


class Forbidden(AppError):
    """This is not allowed for you."""

    kind = Kind.FORBIDDEN
    code = "permission_denied"


class AwaitingApproval(AppError):
    """This user is waiting for an administrator's approval."""

    kind = Kind.FORBIDDEN
    code = "awaiting_approval"


class NotFound(AppError):
    """There is no such thing, or it is not yours."""

    kind = Kind.NOT_FOUND
    code = "not_found"


class Conflict(AppError):
    """This cannot be done in the present state."""

    kind = Kind.CONFLICT
    code = "conflict"


class TooManyUploads(AppError):
    """You keep as many uploads as you may; delete some."""

    kind = Kind.CONFLICT
    code = "too_many_uploads"


class TooLarge(AppError):
    """The request body is too large."""

    kind = Kind.TOO_LARGE
    code = "request_too_large"


class InvalidInput(AppError):
    """A field has an unusable value."""

    kind = Kind.INVALID
    code = "invalid_input"


class UnknownModel(AppError):
    """There is no such model."""

    kind = Kind.INVALID
    code = "unknown_model"


class KeyReused(AppError):
    """This Idempotency-Key was used before with another body."""

    kind = Kind.INVALID
    code = "idempotency_key_reused"


class RateLimited(AppError):
    """Too many requests; try again later."""

    kind = Kind.LIMITED
    code = "rate_limited"


class Unavailable(AppError):
    """The service cannot do this right now; try again later."""

    kind = Kind.UNAVAILABLE
    code = "unavailable"


class TooManyViewers(Unavailable):
    """Too many event streams are open here; try again later."""


class LeaseLost(Exception):
    """Another worker has this step now; whoever lost it writes nothing."""


class LedgerBroken(Exception):
    """A balance or a hold is not what the ledger says; `ledger verify` tells where."""


class StorageUnavailable(Exception):
    """The operator's storage cannot be reached or refuses; what is to be stored is kept and tried again."""


class StorageRefused(StorageUnavailable):
    """The operator's storage refuses this very object, and may well take others; it is kept and tried again."""
