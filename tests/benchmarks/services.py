"""The servers of one run, shared by its benchmarks: PostgreSQL and Valkey, both as durable as in production."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from tests.infrastructure.databases import Released
from tests.infrastructure.postgres import Postgres
from tests.infrastructure.valkey import Valkey

Database = Literal["postgresql", "sqlite"]


class Services:
    """Each is started when it is first asked for, and ends with the run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.released = Released(folder, lambda: self.postgres)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    @cached_property
    def valkey(self) -> Valkey:
        """With an append-only file."""
        return self._stack.enter_context(Valkey(self.folder / "valkey"))

    @cached_property
    def postgres(self) -> Postgres:
        """With fsync."""
        return self._stack.enter_context(Postgres(durable=True))

    def database(self, kind: Database, *, released: bool) -> str:
        """DATABASE_URL of a new database: as the release process leaves it, or empty."""
        if kind == "postgresql":
            return self.released.postgresql() if released else self.postgres.create_database()
        path = self.folder / f"{secrets.token_hex(4)}.db"
        return self.released.sqlite(path) if released else f"sqlite:///{path}"

    def forget(self, url: str) -> None:
        """Remove a database that nobody needs any more."""
        if url.startswith("sqlite"):
            for file in self.folder.glob(f"{Path(url).name}*"):
                file.unlink()
        else:
            self.postgres.drop_database(url)
