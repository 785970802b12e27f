"""What every command shares: `--json`, one line for an error, and how a command ends."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn, ParamSpec

import click

from migrations.errors import one_line
from migrations.outcomes import Exit, Outcome

P = ParamSpec("P")

as_json = click.option("--json", "machine", is_flag=True, help="Print one JSON object, for machines.")


def plainly(command: Callable[P, None]) -> Callable[P, None]:
    """Errors are one line on standard error and exit code 1, never a traceback."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            logging.getLogger("migrations").debug("", exc_info=True)
            raise click.ClickException(one_line(error)) from None

    return run


def finish(outcome: Outcome, machine: bool) -> NoReturn:
    """Print the outcome, on standard error if it is a bad one, and exit with its code."""
    if machine:
        click.echo(json.dumps(outcome.as_json()))
    else:
        click.echo(outcome.line, err=outcome.code not in (Exit.OK, Exit.DEGRADED))
    raise click.exceptions.Exit(int(outcome.code))


def show(facts: Any, lines: list[str], machine: bool) -> None:
    """Print facts for machines, or lines for people."""
    click.echo(json.dumps(facts) if machine else "\n".join(lines))
