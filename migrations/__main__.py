"""`python -m migrations COMMAND`: the operator's door to the schema."""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn, ParamSpec

import click

from common.settings import settings
from migrations import runner, status
from migrations.chain import Chain
from migrations.errors import one_line
from migrations.outcomes import Exit, Outcome
from migrations.waiting import process_started

P = ParamSpec("P")

as_json = click.option("--json", "machine", is_flag=True, help="Print one JSON object, for machines.")


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


def plainly(command: Callable[P, None]) -> Callable[P, None]:
    """Errors are one line on standard error and exit code 1, never a traceback."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except Exception as error:
            logging.getLogger("migrations").debug("", exc_info=True)
            raise click.ClickException(one_line(error)) from None

    return run


def _finish(outcome: Outcome, machine: bool) -> NoReturn:
    if machine:
        click.echo(json.dumps(outcome.as_json()))
    else:
        click.echo(outcome.line, err=outcome.code not in (Exit.OK, Exit.DEGRADED))
    raise click.exceptions.Exit(int(outcome.code))


def _show(facts: Any, lines: list[str], machine: bool) -> None:
    click.echo(json.dumps(facts) if machine else "\n".join(lines))


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
    _finish(runner.upgrade(settings(), Chain(), since=process_started()), machine)


@main.command()
@as_json
@plainly
def wait(machine: bool) -> None:
    """Wait until another process has upgraded the schema, at most MIGRATION_TIMEOUT without a sign of life.

    \b
    Example:
      python -m migrations wait && exec gunicorn web.wsgi:app
    """
    _finish(runner.wait(settings(), Chain(), since=process_started()), machine)


@main.command("status")
@as_json
@plainly
def show_status(machine: bool) -> None:
    """Show how the database stands, what is pending, who is upgrading, and the last runs."""
    found = status.status(settings().database_url, Chain())
    _show(found.as_json(), found.lines(), machine)


@main.command()
@as_json
@plainly
def current(machine: bool) -> None:
    """Show the revisions that the database is at."""
    revisions = status.current(settings().database_url, Chain())
    _show([item.as_json() for item in revisions], [item.line() for item in revisions], machine)


@main.command()
@as_json
@plainly
def history(machine: bool) -> None:
    """List every revision, the oldest first, and when it was applied."""
    revisions = status.history(settings().database_url, Chain())
    _show([item.as_json() for item in revisions], [item.line() for item in revisions], machine)


@main.command()
@as_json
@plainly
def pending(machine: bool) -> None:
    """List the revisions that `upgrade` would apply, in order."""
    revisions = status.pending(settings().database_url, Chain())
    lines = [item.line() for item in revisions] or ["nothing is pending"]
    _show([item.as_json() for item in revisions], lines, machine)


if __name__ == "__main__":
    main(prog_name="python -m migrations")
