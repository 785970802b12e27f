"""The commands that keep a database safe and put it right: backup, restore, verify, repair."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from common.db import schema
from common.settings import Settings, settings
from migrations import backup as backups
from migrations import repair as repairing
from migrations import restore as restoring
from migrations import verify as verification
from migrations.chain import Chain
from migrations.console import as_json, finish, plainly, show
from migrations.errors import MigrationError
from migrations.outcomes import Exit, Outcome
from migrations.state import look


@click.command()
@as_json
@plainly
def backup(machine: bool) -> None:
    """Make a backup now, whoever is using the database, and print where it is.

    SQLite: a copy of the file, in `backups` beside it. PostgreSQL: an archive of pg_dump in `data/backups`, or
    what MIGRATION_BACKUP_CMD makes of it. The last five are kept. `upgrade` does the same by itself.

    \b
    Example:
      python -m migrations backup
    """
    path = _backup(settings(), Chain())
    show({"backup": path}, [path], machine)


def _backup(given: Settings, chain: Chain) -> str:
    engine = schema.probe(given.database_url)
    try:
        with engine.connect() as connection:
            state = look(connection, chain)
            if state.name == "empty":
                raise MigrationError("there is nothing to back up")
            made = backups.make(connection, given, state.db)
    except backups.Unavailable as reason:
        raise MigrationError(f"no backup: {reason}") from None
    finally:
        engine.dispose()
    backups.prune(given)
    return made


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Also where the database has newer data, or cannot be read.")
@as_json
@plainly
def restore(file: Path, force: bool, machine: bool) -> None:
    """Put the backup FILE in the place of what the database has now.

    Refused (exit code 5) where the database has rows that the backup lacks. What is replaced is copied first.
    Stop web, worker and beat before; `upgrade` afterwards, if the backup is older than this code.

    \b
    Example:
      python -m migrations restore data/backups/webui-20260102T030405.678Z-merge_heads_final.db
    """
    finish(restoring.restore(settings(), Chain(), file, force=force), machine)


@click.command()
@as_json
@plainly
def verify(machine: bool) -> None:
    """Prove that the database is whole, and list what is not: exit code 0 clean, 1 with findings.

    Missing tables, columns and indexes, types that contradict the models, rows that cannot be read or have lost
    their parent, fewer rows than after the last upgrade, credits that do not add up, changed revision files,
    damaged pages. Nothing is changed.

    \b
    Example:
      python -m migrations verify --json
    """
    found = verification.verify(settings().database_url, Chain())
    show(found.as_json(), found.lines(), machine)
    raise click.exceptions.Exit(int(Exit.OK if found.is_clean else Exit.FAILED))


@click.command()
@click.option("--yes", is_flag=True, help="Do it without asking.")
@as_json
@plainly
def repair(yes: bool, machine: bool) -> None:
    """Find out what is wrong with the schema, show a plan, and after a backup carry it out.

    Works where the version table is empty, wrong, or names a revision that nobody knows; where a revision was
    half applied; where a table, a column or an index is missing. Nothing is dropped but what an interrupted
    rebuild left. Asks first on a terminal, and does nothing without --yes anywhere else.

    Exit codes: 0 the database is whole, 1 something is left (said what), 3 timed out waiting, 5 refused.

    \b
    Example:
      python -m migrations repair          # the plan, and a question
      python -m migrations repair --yes
    """
    given, chain = settings(), Chain()
    plan = repairing.plan(given.database_url, chain)
    if not machine:
        click.echo("\n".join(plan.lines()))
    if not plan.steps:
        outcome = repairing.nothing_to_do(given, chain)
    elif yes or (not machine and sys.stdin.isatty() and click.confirm("Do this?")):
        outcome = repairing.repair(given, chain, plan)
    else:
        outcome = Outcome(Exit.FAILED, "planned", "nothing was done: --yes does it")
    if machine:
        click.echo(json.dumps({**plan.as_json(), "outcome": outcome.as_json()}))
        raise click.exceptions.Exit(int(outcome.code))
    finish(outcome, machine)


commands: list[click.Command] = [backup, restore, verify, repair]
