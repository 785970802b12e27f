"""The commands for those who run the platform: `plan` before an upgrade, `unlock` when one is stuck."""

from __future__ import annotations

import click

from common.settings import settings
from migrations.chain import Chain
from migrations.console import as_json, plainly, show
from migrations.outcomes import Exit
from migrations.plan import plan as rehearse
from migrations.unlock import unlock as look


@click.command()
@as_json
@plainly
def plan(machine: bool) -> None:
    """Show the pending revisions, their SQL, how long it takes, and on PostgreSQL which tables it locks.

    They run under the upgrade's own lock and are rolled back: nothing is changed, but tables are locked as
    shown for as long as it takes. An index built beside the work is shown and not built. Exit codes: 0 an upgrade
    would succeed, 1 it would fail.

    \b
    Example:
      DATABASE_URL=postgres://… python -m migrations plan
    """
    found = rehearse(settings(), Chain())
    show(found.as_json(), found.lines(), machine)
    raise click.exceptions.Exit(int(Exit.FAILED if found.error else Exit.OK))


@click.command()
@click.option(
    "--terminate", is_flag=True, help="End the session that has the guard; remove a lease nobody renews."
)
@as_json
@plainly
def unlock(terminate: bool, machine: bool) -> None:
    """Show who is upgrading, by guard and by lease; with --terminate end one that is stuck.

    Without --terminate nothing is touched. On SQLite only the process itself can be ended: it is named. Exit codes:
    0 shown or ended, 1 something is left.

    \b
    Example:
      python -m migrations unlock
      python -m migrations unlock --terminate
    """
    found = look(settings(), terminate=terminate)
    show(found.as_json(), found.lines(), machine)
    raise click.exceptions.Exit(int(Exit.FAILED if found.left else Exit.OK))


commands: list[click.Command] = [plan, unlock]
