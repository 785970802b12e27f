"""The yardstick of `accept`: a Flask view that does nothing but one INSERT, on the platform's own database."""

from __future__ import annotations

import os
import sqlite3
import uuid
from typing import Any

import psycopg
from flask import Flask, request
from flask.typing import ResponseReturnValue

_URL = os.environ["DATABASE_URL"]
_SQLITE = _URL.startswith("sqlite:///")
_INSERT = f"INSERT INTO bare (id, body) VALUES ({'?, ?' if _SQLITE else '%s, %s'})"

app = Flask("bare")
_idle: list[Any] = []  # connections; as many as there ever were requests at once


@app.post("/")
def insert() -> ResponseReturnValue:
    """Write the body down."""
    known = uuid.uuid4().hex
    connection = _idle.pop() if _idle else _connect()
    connection.execute(_INSERT, (known, request.get_data(as_text=True)))
    _idle.append(connection)
    return {"id": known}, 202


def _connect() -> Any:
    """A connection that commits each statement, as durably as the platform does."""
    if not _SQLITE:
        return psycopg.connect(_URL, autocommit=True, connect_timeout=5)
    connection = sqlite3.connect(
        _URL.removeprefix("sqlite:///"), timeout=30, isolation_level=None, check_same_thread=False
    )
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")
    return connection
