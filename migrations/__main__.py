"""`python -m migrations COMMAND`: the operator's door to the schema."""

from __future__ import annotations

import logging
import signal
import sys
from typing import NoReturn

import click

from common.settings import settings
from migrations import authoring, operating, runner, status, upkeep
from migrations.chain import Chain
from migrations.console import as_json, finish, plainly, show
from migrations.waiting import process_started


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]}, epilog="Settings: DATABASE_URL, REDIS_URL, …"
)
def main() -> None:
    """Bring the database's schema to what this code needs, once, and show how it stands.

    Exit codes of upgrade and wait: 0 current or ahead, 1 failed, 3 timed out waiting, 4 usable but degraded,
    5 refused (foreign or conflicting database).
    """
    _log_like_alembic()
    # A polite kill gives lease and guard back at once instead of after their time.
    signal.signal(signal.SIGTERM, _on_terminate)


def _on_terminate(*_: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


def _log_like_alembic() -> None:
    logging.basicConfig(
        format="%(levelname)-5.5s [%(name)s] %(message)s", stream=sys.stderr, level=logging.WARNING
    )
    for name in ("alembic.runtime.migration", "migrations", "common"):
        logging.getLogger(name).setLevel(logging.INFO)


@main.command()
@as_json
@plainly
def upgrade(machine: bool) -> None:
    """Upgrade the schema, or wait for the process that is doing it.

    Any number of processes may run this at once: one upgrades, all get its outcome. Safe to repeat.

    \b
    Example:
      DATABASE_URL=postgres://… python -m migrations upgrade
    """
    finish(runner.upgrade(settings(), Chain(), since=process_started()), machine)


@main.command()
@as_json
@plainly
def wait(machine: bool) -> None:
    """Wait until another process has upgraded the schema, at most MIGRATION_TIMEOUT without a sign of life.

    \b
    Example:
      python -m migrations wait && exec gunicorn web.wsgi:app
    """
    finish(runner.wait(settings(), Chain(), since=process_started()), machine)


@main.command("status")
@as_json
@plainly
def show_status(machine: bool) -> None:
    """Show how the database stands, what is pending, who is upgrading, and the last runs."""
    found = status.status(settings().database_url, Chain())
    show(found.as_json(), found.lines(), machine)


@main.command()
@as_json
@plainly
def current(machine: bool) -> None:
    """Show the revisions that the database is at."""
    revisions = status.current(settings().database_url, Chain())
    show([item.as_json() for item in revisions], [item.line() for item in revisions], machine)


@main.command()
@as_json
@plainly
def history(machine: bool) -> None:
    """List every revision, the oldest first, and when it was applied."""
    revisions = status.history(settings().database_url, Chain())
    show([item.as_json() for item in revisions], [item.line() for item in revisions], machine)


@main.command()
@as_json
@plainly
def pending(machine: bool) -> None:
    """List the revisions that `upgrade` would apply, in order."""
    revisions = status.pending(settings().database_url, Chain())
    lines = [item.line() for item in revisions] or ["nothing is pending"]
    show([item.as_json() for item in revisions], lines, machine)


for command in [*authoring.commands, *operating.commands, *upkeep.commands]:
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name="python -m migrations")
