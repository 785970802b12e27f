"""A new revision: its body is what the models have and the chain does not make yet."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from alembic.autogenerate import render_python_code
from alembic.operations.ops import (
    AddColumnOp,
    AlterColumnOp,
    CreateIndexOp,
    CreateTableOp,
    MigrateOperation,
    UpgradeOps,
)
from alembic.runtime.migration import MigrationContext
from alembic.util import rev_id, template_to_file
from sqlalchemy.sql.elements import UnaryExpression

from migrations import scratch
from migrations.chain import Chain
from migrations.errors import MigrationError, Refused

HEAD = "HEAD"

_JSON = 'sa.JSON().with_variant(JSONB(), "postgresql")'
_OURS = {
    "op.create_table(": "op.create_table_if_missing(",
    "op.add_column(": "op.add_column_if_missing(",
}


@dataclass(frozen=True)
class Draft:
    """A revision that was just written. `adds` names what it adds, e.g. `user.nickname`."""

    revision: str
    down_revision: str
    path: str
    adds: list[str]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        made = (
            f"{self.path} adds {', '.join(self.adds)}" if self.adds else f"{self.path} is yet to be written"
        )
        return [made, f"migrations/{HEAD}: {self.down_revision} -> {self.revision}"]


def new(chain: Chain, message: str) -> Draft:
    """Write the next revision, and its id into HEAD, where two branches that both add one conflict in git.

    Raises Refused when the chain has not exactly one head, or when the models want more than an addition.
    """
    words = " ".join(message.split())
    slug = re.sub(r"\W+", "_", words.lower()).strip("_")[:40].rstrip("_")
    if not slug or '"' in words or "\\" in words:
        raise Refused('a revision needs a name in plain words, e.g. "add user nickname"')
    head = _only_head(chain)
    with scratch.upgraded(chain) as connection:
        wanted = list(scratch.each(scratch.difference(connection)))
    adds = [named(operation) for operation in wanted]
    body = _body(wanted)
    revision = rev_id()
    folder = Path(chain.script.dir)
    path = folder / "versions" / f"{revision}_{slug}.py"
    template_to_file(
        str(folder / "script.py.mako"),
        str(path),
        "utf-8",
        message=words,
        imports=_imports(body),
        up_revision=revision,
        down_revision=head,
        body=body,
    )
    _format(path)
    (folder / HEAD).write_text(f"{revision}\n")
    return Draft(revision, head, str(path.relative_to(folder.parent)), adds)


def _only_head(chain: Chain) -> str:
    if chain.broken:
        raise Refused(f"the revisions cannot be loaded: {chain.broken}")
    if len(chain.heads) != 1:
        raise Refused(
            f"the chain has {len(chain.heads)} heads ({', '.join(chain.heads)}): make one follow the other first"
        )
    return chain.heads[0]


def named(operation: MigrateOperation) -> str:
    """What an operation adds. Raises Refused for one that does not only add."""
    match operation:
        case CreateTableOp():
            return operation.table_name
        case AddColumnOp():
            _check_column(operation.table_name, operation.column)
            return f"{operation.table_name}.{operation.column.name}"
        case CreateIndexOp():
            return str(operation.index_name)
        case AlterColumnOp():
            what = f"{operation.table_name}.{operation.column_name} is another one"
        case _:
            table = getattr(operation, "table_name", None) or getattr(operation, "source_table", "?")
            what = f"{operation.to_diff_tuple()[0]} on {table}".replace("_", " ", 1)
    raise Refused(
        f"the models differ from the chain in more than an addition ({what}): "
        "rows and older releases would not bear it"
    )


def _check_column(table: str, column: sa.Column[Any]) -> None:
    if not column.nullable and column.server_default is None:
        raise Refused(
            f"{table}.{column.name} must be nullable or have a constant server_default: the table has rows"
        )
    if column.foreign_keys:
        raise Refused(
            f"{table}.{column.name} must not be a foreign key: adding one locks both tables while it is checked"
        )


def _body(operations: list[MigrateOperation]) -> list[str]:
    """The calls of `upgrade()`, one or more lines each; indexes last, when their tables are there."""
    indexes = [item for item in operations if isinstance(item, CreateIndexOp)]
    others = [item for item in operations if not isinstance(item, CreateIndexOp)]
    calls = [*map(_call, others), *map(_index_call, indexes)]
    return [line for call in calls for line in call.splitlines()]


def _call(operation: MigrateOperation) -> str:
    """As Alembic writes it, but by our names, which look first."""
    with scratch.quietly():
        context = MigrationContext.configure(dialect_name="postgresql")
        text = render_python_code(UpgradeOps(ops=[operation]), render_item=_render, migration_context=context)
    lines = (line.removeprefix("    ") for line in text.splitlines())
    call = re.sub(
        r"\bop\.f\(('[^']*')\)", r"\1", "\n".join(line for line in lines if not line.startswith("#"))
    )
    for theirs, ours in _OURS.items():
        call = call.replace(theirs, ours)
    return call


def _index_call(operation: CreateIndexOp) -> str:
    index = operation.to_index()
    columns: list[str] = []
    descending: list[str] = []
    for part in index.expressions:
        column, is_sorted = (part.element, True) if isinstance(part, UnaryExpression) else (part, False)
        if not isinstance(column, sa.Column):
            raise Refused(f"{index.name} is on an expression: write its revision by hand")
        columns.append(column.name)
        descending += [column.name] * is_sorted
    arguments = [repr(index.name), repr(operation.table_name), repr(columns)]
    arguments += ["unique=True"] if index.unique else []
    arguments += [f"descending={descending!r}"] if descending else []
    where = index.dialect_options["postgresql"]["where"]
    arguments += [f"where={str(where)!r}"] if where is not None else []
    return f"op.create_index_if_missing({', '.join(arguments)})"


def _render(kind: str, item: Any, _context: object) -> str | Literal[False]:
    """Types of our own as what they are in the database: a revision may not import them."""
    if kind != "type":
        return False
    if isinstance(item, sa.JSON):
        return _JSON
    if isinstance(item, sa.types.TypeDecorator):
        return f"sa.{item.impl_instance!r}"
    return False


def _imports(body: list[str]) -> list[str]:
    text = "\n".join(body)
    lines = ["import sqlalchemy as sa"] if "sa." in text else []
    lines.append("from alembic import op")
    return lines + (["from sqlalchemy.dialects.postgresql import JSONB"] if "JSONB(" in text else [])


def _format(path: Path) -> None:
    """As `make fix` would, where its tools are installed."""
    if find_spec("ruff") is None:
        return
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--quiet", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        path.unlink()
        raise MigrationError(f"the draft is no Python: {path}: {done.stderr.strip().splitlines()[:1]}")
