"""What every endpoint declares once: who may call it, what it takes and what it answers.

The decorator does the parsing and the authorising; `web.openapi` reads the same declaration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import wraps
from typing import Any

from flask import Response, request
from pydantic import BaseModel

from common.db import again, commits
from web import auth, rates, tries
from web.answers import answer
from web.parsing import body_object, fit, form_object, query_values

View = Callable[..., Response | dict[str, Any]]


class Access(Enum):
    """Who may call an endpoint."""

    ANYONE = "anyone"
    USER = "user"
    SUBMITTER = "submitter"  # a user, recognised from memory where it was seen a moment ago, and counted
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One endpoint's declaration."""

    access: Access
    body: type[BaseModel] | None
    as_form: bool  # the body may be a form, whose files become data URLs
    takes_file: bool  # instead of a body: bare or as a form, which the view reads itself
    query: type[BaseModel] | None
    returns: type[BaseModel] | None  # None: no JSON, or nothing at all
    many: bool
    status: int
    also: tuple[int, ...]  # other statuses of the same answer, from a view that sets them itself
    errors: tuple[int, ...]
    headers: tuple[str, ...]  # request headers that mean something here
    summary: str

    @property
    def body_may_be_absent(self) -> bool:
        """Whether an empty body says as much as `{}`: nothing in it is required."""
        return self.body is not None and not any(f.is_required() for f in self.body.model_fields.values())


def endpoint(
    *,
    access: Access,
    body: type[BaseModel] | None = None,
    as_form: bool = False,
    takes_file: bool = False,
    query: type[BaseModel] | None = None,
    returns: type[BaseModel] | None = None,
    many: bool = False,
    status: int = 200,
    also: tuple[int, ...] = (),
    errors: tuple[int, ...] = (),
    headers: tuple[str, ...] = (),
    max_bytes: int | None = None,
) -> Callable[[View], View]:
    """Call the view with `actor`, `body` and `query` as far as they are declared; answer what it returns."""

    def decorate(view: View) -> View:
        declared = Endpoint(
            access=access, body=body, as_form=as_form, takes_file=takes_file, query=query, returns=returns, many=many,
            status=status, also=also, errors=errors, headers=headers,
            summary=(view.__doc__ or "").strip().partition("\n")[0],
        )  # fmt: skip

        def told() -> dict[str, Any]:
            given: dict[str, Any] = {}
            if access is not Access.ANYONE:
                given["actor"] = again(lambda: _authorised(access))
            if access is Access.SUBMITTER:
                rates.count(given["actor"])
            if query is not None:
                given["query"] = query_values(query)
            if body is not None:
                is_form = as_form and request.mimetype == "multipart/form-data"
                sent = form_object() if is_form else body_object(may_be_absent=declared.body_may_be_absent)
                given["body"] = fit(body, sent)
            return given

        def answered(**of_path: Any) -> Response:
            if max_bytes is not None:
                request.max_content_length = min(max_bytes, request.max_content_length or max_bytes)
            given = {**of_path, **told()}  # once: a body can be read only once, and a submit counts only once
            made = again(lambda: view(**given))
            return made if isinstance(made, Response) else answer(made, status)

        @wraps(view)
        def call(**of_path: Any) -> Response:
            before = commits()
            try:
                return answered(**of_path)
            except Exception as error:
                if access is Access.SUBMITTER and commits() == before:
                    tries.note_refusal(error)
                raise

        call.endpoint = declared  # type: ignore[attr-defined]
        return call

    return decorate


def _authorised(access: Access) -> Any:
    return auth.admin() if access is Access.ADMIN else auth.actor(remembered=access is Access.SUBMITTER)


def declaration(view: Callable[..., Any]) -> Endpoint | None:
    """What `endpoint` was told about this view."""
    return getattr(view, "endpoint", None)
