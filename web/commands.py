"""Operators' commands: `flask --app web.app …`. Standard output holds only what scripts need."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
from flask import Flask
from flask.cli import AppGroup
from sqlalchemy.exc import DBAPIError

from common import queue
from common.db import reading, transaction
from common.errors import AppError, InvalidInput, StorageUnavailable
from common.ids import new_id
from common.services import credits, deletions, doctor, jobs, users
from common.services.presentation import job_object
from common.services.users import Actor
from common.storage import ROOMS, pages, storage
from common.words import Role
from web import importing

_PING_S = 2.0
OPERATOR = Actor("operator", "", "operator", Role.ADMIN)  # whoever has a shell may see everything

users_commands = AppGroup("users", help="Users of the platform.")
tokens_commands = AppGroup("tokens", help="Bearer tokens.")
credits_commands = AppGroup("credits", help="Users' credits.")
ledger_commands = AppGroup("ledger", help="The history of credits.")
jobs_commands = AppGroup("jobs", help="Users' jobs.")
storage_commands = AppGroup("storage", help="The operator's storage.")


def register(app: Flask) -> None:
    """Make the commands known to `flask`."""
    for group in (
        users_commands,
        tokens_commands,
        credits_commands,
        ledger_commands,
        jobs_commands,
        storage_commands,
    ):
        app.cli.add_command(group)
    app.cli.add_command(examine)
    app.cli.add_command(import_legacy)


def plainly(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what goes wrong into one line on standard error and exit code 1."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        logging.getLogger().setLevel(logging.ERROR)
        try:
            command(*args, **kwargs)
        except (AppError, StorageUnavailable) as error:
            _fail(str(error))
        except DBAPIError as error:
            _fail(f"database: {str(error.orig or error).strip().partition(chr(10))[0]}")

    return run


def _fail(line: str) -> None:
    click.echo(f"error: {line}", err=True)
    sys.exit(1)


@users_commands.command("create")
@click.argument("email")
@click.option("--name", default="", help="Defaults to the part before the @.")
@click.option("--role", type=click.Choice([role.value for role in Role]), default=Role.USER.value)
@click.option("--password", help="Without one the user can only use tokens.")
@plainly
def create_user(email: str, name: str, role: str, password: str | None) -> None:
    """Create a user and print the id."""
    with transaction() as session:
        user = users.create_user(session, email=email, name=name, role=Role(role), password=password)
    click.echo(user.id)


@tokens_commands.command("create")
@click.argument("email")
@click.option("--name", default="command line")
@plainly
def create_token(email: str, name: str) -> None:
    """Create a token for a user and print it, this once."""
    with transaction() as session:
        secret, _ = users.create_token(session, users.find_user(session, email).id, name[:255])
    click.echo(secret)


@credits_commands.command("grant")
@click.argument("email")
@click.argument("amount", type=int)
@click.option("--note")
@plainly
def grant(email: str, amount: int, note: str | None) -> None:
    """Give a user credits and print the ledger entry's id."""
    if not 1 <= amount <= credits.MAX_AMOUNT:
        raise InvalidInput(f"AMOUNT must be 1 to {credits.MAX_AMOUNT}.")
    with transaction() as session:
        user = users.find_user(session, email)
        entry = credits.grant(
            session, user.id, amount, note=note, reference=f"grant:operator:{new_id('key')}"
        )
    click.echo(entry.id)


@ledger_commands.command("verify")
@plainly
def verify() -> None:
    """Prove that every credit is accounted for; exit 1 with what is not."""
    with reading() as session:
        wrong = credits.verify(session)
    for line in wrong:
        click.echo(line)
    sys.exit(1 if wrong else 0)


@jobs_commands.command("show")
@click.argument("job_id")
@plainly
def show(job_id: str) -> None:
    """Print a job as JSON."""
    with reading() as session:
        job = jobs.get(session, OPERATOR, job_id)
        shown = job_object(job, jobs.artifacts(session, [job_id])[job_id])
    click.echo(json.dumps(shown, ensure_ascii=False, indent=2))


@jobs_commands.command("retry")
@click.argument("job_id")
@plainly
def retry(job_id: str) -> None:
    """Run a failed or canceled job once more, for its user at today's price, and print the new job's id."""
    with transaction() as session:
        job = jobs.retry(session, job_id)
    click.echo(job.id)


@storage_commands.command("orphans")
@click.option("--older-than", type=click.FloatRange(min=1), default=24.0, show_default=True, help="Hours.")
@click.option("--delete", is_flag=True, help="Have the workers remove them.")
@plainly
def orphans(older_than: float, delete: bool) -> None:
    """List objects of ours in the storage that nothing knows of: key, bytes. All of them are looked at."""
    for page in pages(storage(), [f"{room}/" for room in ROOMS]):
        with transaction() as session:
            found = deletions.orphans(session, page, older_than * 3600)
            if delete:
                deletions.forget(session, [each.key for each in found])
        for each in found:
            click.echo(f"{each.key}\t{each.bytes}")


@click.command("doctor")
@plainly
def examine() -> None:
    """Look for anything that is not well; exit 1 with a line for each finding."""
    lines = [] if queue.is_reachable(_PING_S) else ["redis: does not answer; jobs go on, but slower"]
    with reading() as session:
        lines += doctor.findings(session)
    for line in lines:
        click.echo(line)
    sys.exit(1 if lines else 0)


@click.command("import-legacy")
@click.option("--dry-run", is_flag=True, help="Print the totals and change nothing.")
@click.option("--rehost", is_flag=True, help="Have the workers copy what is only at the provider.")
@click.option(
    "--storage-env",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the legacy bucket's settings, with its keys, into this new file.",
)
@plainly
def import_legacy(dry_run: bool, rehost: bool, storage_env: Path | None) -> None:
    """Take over wxiai's balances, tasks, accounts and prices; exit 1 where the totals do not match."""
    sys.exit(importing.run(dry_run=dry_run, rehost=rehost, storage_env=storage_env))
