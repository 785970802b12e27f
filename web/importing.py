"""`flask --app web.app import-legacy`: take over what wxiai, the ancestor, has written into this database."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from sqlalchemy.orm import Session

from common.db import reading, transaction
from common.errors import Conflict
from common.services.legacy import configs, parts
from common.services.legacy.parts import Import, Proof


def run(*, dry_run: bool, rehost: bool, storage_env: Path | None) -> int:
    """The whole import; every batch is a transaction of its own, so it may be killed and begun again at any time.

    Returns the exit code: 1 where something does not match, and then nothing says that the import is complete.
    """
    with reading() as session:
        if not parts.is_legacy(session):
            raise Conflict("There are no tables of wxiai in this database.")
    opened = reading if dry_run else transaction
    with opened() as session:
        import_ = parts.begin(session, write=not dry_run, rehost=rehost)
    with reading() as session:
        rows = parts.size(session, import_)
    _go_through(import_, rows, opened)
    proof = Proof()
    if not dry_run:
        with reading() as session:
            proof = parts.check(session, import_)
        if not proof.lines:
            with transaction() as session:
                parts.complete(session, import_)
    _report(import_, proof)
    if storage_env is not None:
        _write_storage_env(import_, storage_env)
    return 1 if proof.lines else 0


def _go_through(import_: Import, rows: int, opened: Any) -> None:
    with _progress(rows) as bar:
        for part in parts.parts():
            after: str | None = None
            while True:
                with opened() as session:
                    count, after = parts.step(session, import_, part, after)
                bar.update(count)
                if after is None:
                    break


@contextmanager
def _progress(rows: int) -> Iterator[Any]:
    """A bar where somebody is looking."""
    out = sys.stderr
    with click.progressbar(length=rows, label="import-legacy", file=out, hidden=not out.isatty()) as bar:
        yield bar


# ---------------------------------------------------------------- what it says


def _report(import_: Import, proof: Proof) -> None:
    for totals in import_.totals.values():
        if totals.rows:
            click.echo("\n".join(totals.lines()))
    with reading() as session:
        for line in parts.remarks(session, import_):
            click.echo(line)
        _show_storage(session, import_)
    if proof.changed:
        click.echo(
            f"changed in the legacy program since the import was complete: {proof.changed} rows, kept as imported"
        )
    for line in proof.lines:
        click.echo(f"mismatch: {line}")
    click.echo(_verdict(import_, proof))


def _verdict(import_: Import, proof: Proof) -> str:
    if not import_.write:
        return "dry run: nothing was changed"
    return "not complete: the totals do not match" if proof.lines else "complete: all totals match"


def _show_storage(session: Session, import_: Import) -> None:
    lines = configs.storage_lines(session, import_.source, secrets=False)
    if lines:
        click.echo(
            "storage is a matter of the environment; the legacy bucket means (--storage-env FILE writes it whole):"
        )
        for line in lines:
            click.echo(f"  {line}")


def _write_storage_env(import_: Import, path: Path) -> None:
    """Secrets go into a new file that only its owner reads, never to a terminal."""
    with reading() as session:
        lines = configs.storage_lines(session, import_.source, secrets=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise Conflict(f"{path}: {error.strerror}.") from None
    with os.fdopen(handle, "w") as file:
        file.writelines(f"{line}\n" for line in lines)
