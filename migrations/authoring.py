"""The commands for those who write revisions: `new` and `lint`."""

from __future__ import annotations

import click

from migrations.chain import Chain
from migrations.console import as_json, plainly, show
from migrations.lint import lint as look_over
from migrations.new import new as draft
from migrations.outcomes import Exit


@click.command()
@click.argument("message")
@as_json
@plainly
def new(message: str, machine: bool) -> None:
    """Write the next revision, named MESSAGE: what the models have and the chain does not make yet.

    Nullable columns, tables and indexes, each with its check for what is there already; anything but an addition is
    refused. No database is asked. migrations/HEAD names the new revision, so that two branches conflict in git.

    \b
    Example (after adding the line `nickname: Mapped[str | None] = …` to the model):
      python -m migrations new "add user nickname"
    """
    made = draft(Chain(), message)
    show(made.as_json(), made.lines(), machine)


@click.command()
@as_json
@plainly
def lint(machine: bool) -> None:
    """Say which revision breaks a rule, on which line: they only add, and lock nothing for long.

    A line that must break one says so and why: `# lint: <rule>: <reason>`. Needs no database, but squawk
    (requirements-dev.txt). Exit codes: 0 clean, 1 findings.

    \b
    Example:
      python -m migrations lint
    """
    found = look_over(Chain())
    show([item.as_json() for item in found], [str(item) for item in found] or ["clean"], machine)
    raise click.exceptions.Exit(int(Exit.FAILED if found else Exit.OK))


commands: list[click.Command] = [new, lint]
