"""The additive-only rule over the file of one revision, read and never run.

A line that must break a rule says so and why: `# lint: <rule>: <reason>`.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RULES = {
    "import": "imports something that will change or go: only Alembic, SQLAlchemy and the standard library stay",
    "drop": "removes or renames: older releases still use it, and its rows would be lost",
    "alter": "changes what is there: a type, a name, or NOT NULL on rows that may have none",
    "not-null": "a new NOT NULL column needs a constant server_default for the rows that are there",
    "volatile-default": "a default that is no constant rewrites the whole table under a lock",
    "unchecked": "does not look whether it is there already: use op.…_if_missing",
    "blocking-index": "blocks writers while it is built: use op.create_index_if_missing",
    "constraint": "checks the whole table under a lock",
    "rebuild": "copies the whole table on SQLite",
    "unbounded": "changes every row in one transaction: say which with WHERE",
    "opaque": "cannot be judged: write it as a literal",
    "json": "plain json has no equality on PostgreSQL: sa.JSON().with_variant(JSONB(), 'postgresql')",
    "transaction": "begins or ends a transaction: all of a revision must happen or nothing",
    "downgrade": "must do nothing and say why: dropping loses data",
    "nothing": "upgrade() does nothing",
}

_STABLE = frozenset({"alembic", "sqlalchemy", "__future__"}) | sys.stdlib_module_names
_REMOVING = re.compile(r"drop_\w+|drop|rename_table|drop_all")
_CONSTRAINTS = re.compile(
    r"create_(foreign_key|unique_constraint|check_constraint|exclude_constraint|primary_key)"
)
_UNCHECKED = frozenset({"create_table", "add_column", "create_table_comment", "create_all"})
_ENDING = frozenset({"commit", "rollback", "begin", "autocommit_block"})
_EXECUTING = frozenset({"execute", "exec_driver_sql", "scalar", "scalars"})
_ALLOWED = re.compile(r"#\s*lint:\s*([\w-]+):\s*\S")

_CONSTANT_SQL = re.compile(r"\s*('([^']|'')*'|-?\d+(\.\d+)?|true|false|null)\s*", re.IGNORECASE)
_SQL: list[tuple[str, re.Pattern[str]]] = [
    (rule, re.compile(pattern, re.IGNORECASE | re.DOTALL))
    for rule, pattern in (
        ("drop", r"\b(drop\s+\w+|truncate\b|rename\s+(to|column|constraint))"),
        ("alter", r"\balter\s+(column|type)\b|\bset\s+not\s+null\b"),
        ("unchecked", r"\bcreate\s+table\s+(?!if\s+not\s+exists)|\badd\s+column\s+(?!if\s+not\s+exists)"),
        ("blocking-index", r"\bcreate\s+(unique\s+)?index\s+(?!concurrently)"),
        ("constraint", r"\badd\s+(constraint|foreign|primary|unique|check)\b(?!.*\bnot\s+valid\b)"),
        ("unbounded", r"^\s*(update|delete)\b(?!.*\bwhere\b)"),
        ("transaction", r"^\s*(begin|commit|rollback)\b"),
    )
]


@dataclass(frozen=True, order=True)
class Finding:
    """A broken rule: in which file, on which line, and why it matters."""

    file: str
    line: int
    rule: str
    message: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}: {self.message}"


def read(path: Path) -> list[Finding]:
    """What is wrong with the revision in that file."""
    source = path.read_text()
    found = {
        Finding(path.name, node.lineno, rule, f"{what}: {RULES[rule]}" if what else RULES[rule])
        for node, rule, what in _Reader(ast.parse(source)).broken()
    }
    return sorted(item for item in found if not is_allowed(source, item))


def is_allowed(source: str, finding: Finding) -> bool:
    """Does the line itself, or the one above it, say why it breaks the rule?"""
    lines = source.splitlines()
    near = lines[max(finding.line - 2, 0) : finding.line]
    return any(match[1] == finding.rule for line in near for match in _ALLOWED.finditer(line))


Broken = tuple[ast.expr | ast.stmt, str, str]


class _Reader:
    """One file's syntax tree, with what its names stand for."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        self._parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        self._values: dict[str, list[ast.expr]] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        self._values.setdefault(target.id, []).append(node.value)

    def broken(self) -> Iterator[Broken]:
        yield from self._imports()
        yield from self._purpose()
        downgrade = set(ast.walk(self._functions["downgrade"])) if "downgrade" in self._functions else set()
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Call) and node not in downgrade:
                yield from self._call(node)
            elif isinstance(node, ast.Attribute) and node.attr == "JSON":
                yield from self._json(node)

    # ------------------------------------------------------------ the file

    def _imports(self) -> Iterator[Broken]:
        for node in ast.walk(self._tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or "." * node.level]
            for name in names:
                if name.partition(".")[0] not in _STABLE:
                    assert isinstance(node, ast.stmt)
                    yield node, "import", name

    def _purpose(self) -> Iterator[Broken]:
        downgrade, upgrade = self._functions.get("downgrade"), self._functions.get("upgrade")
        if downgrade is None or not ast.get_docstring(downgrade) or len(downgrade.body) > 1:
            yield downgrade or self._tree.body[0], "downgrade", ""
        if upgrade is None or (not self._joins_branches() and not self._acts(upgrade)):
            yield upgrade or self._tree.body[0], "nothing", ""

    def _joins_branches(self) -> bool:
        return any(isinstance(value, ast.Tuple) for value in self._values.get("down_revision", ()))

    @staticmethod
    def _acts(upgrade: ast.FunctionDef) -> bool:
        return any(isinstance(node, ast.Call) for node in ast.walk(upgrade))

    # ------------------------------------------------------------ calls

    def _call(self, call: ast.Call) -> Iterator[Broken]:
        name = _name(call.func)
        if not isinstance(call.func, ast.Attribute):
            return
        if _REMOVING.fullmatch(name):
            yield call, "drop", name
        elif name == "alter_column":
            yield call, "alter", name
        elif name == "batch_alter_table":
            yield call, "rebuild", name
        elif name in _UNCHECKED:
            yield call, "unchecked", name
        elif name == "create_index":
            yield call, "blocking-index", name
        elif _CONSTRAINTS.fullmatch(name):
            yield call, "constraint", name
        elif name in _ENDING:
            yield call, "transaction", name
        elif name in _EXECUTING:
            yield from self._executed(call)
        if name in ("add_column", "add_column_if_missing"):
            yield from self._added(call)

    def _added(self, call: ast.Call) -> Iterator[Broken]:
        columns = [
            value
            for argument in call.args
            for value in self._meanings(argument)
            if isinstance(value, ast.Call) and _name(value.func) == "Column"
        ]
        if not columns:
            yield call, "opaque", "the new column"
        for column in columns:
            options = {keyword.arg: keyword.value for keyword in column.keywords}
            default = options.get("server_default", ast.Constant(None))
            if not self._is_constant(default):
                yield call, "volatile-default", ""
            if not self._is(options.get("nullable"), True, unless_given=True) and self._may_be_none(default):
                yield call, "not-null", ""
            if not self._is(options.get("unique"), False, unless_given=True):
                yield call, "constraint", "unique=True"
            if any(isinstance(part, ast.Call) and _name(part.func) == "ForeignKey" for part in column.args):
                yield call, "constraint", "ForeignKey"
            if "primary_key" in options:
                yield call, "not-null", "primary_key"

    def _executed(self, call: ast.Call) -> Iterator[Broken]:
        if not call.args:
            yield call, "opaque", "SQL"
            return
        for statement in self._meanings(call.args[0]):
            verbs = _verbs(statement)
            if (text := self._sql(statement)) is not None:
                for rule, pattern in _SQL:
                    if match := pattern.search(text):
                        yield call, rule, " ".join(match[0].split())[:40]
            elif verbs & {"update", "delete"}:
                if "where" not in verbs:
                    yield call, "unbounded", ""
            elif not verbs & {"insert", "select"}:
                yield call, "opaque", "SQL"

    def _sql(self, node: ast.expr) -> str | None:
        """The text of a literal or of `text("…")`, if it is one."""
        if isinstance(node, ast.Call) and _name(node.func) == "text" and len(node.args) == 1:
            node = node.args[0]
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        return None

    # ------------------------------------------------------------ values

    def _meanings(self, node: ast.expr) -> list[ast.expr]:
        """What an expression may be: a name's values, both halves of a conditional."""
        if isinstance(node, ast.Name) and node.id in self._values:
            return [meaning for value in self._values[node.id] for meaning in self._meanings(value)]
        if isinstance(node, ast.IfExp):
            return [*self._meanings(node.body), *self._meanings(node.orelse)]
        return [node]

    def _is_constant(self, node: ast.expr) -> bool:
        return all(self._is_constant_value(value) for value in self._meanings(node))

    def _is_constant_value(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Call) and _name(node.func) in ("true", "false", "null"):
            return True
        if isinstance(node, ast.Constant):
            return node.value is None or isinstance(node.value, str)
        text = self._sql(node)
        return text is not None and _CONSTANT_SQL.fullmatch(text) is not None

    def _may_be_none(self, node: ast.expr) -> bool:
        return any(isinstance(value, ast.Constant) and value.value is None for value in self._meanings(node))

    def _is(self, node: ast.expr | None, wanted: object, *, unless_given: bool) -> bool:
        if node is None:
            return unless_given
        return all(
            isinstance(value, ast.Constant) and value.value is wanted for value in self._meanings(node)
        )

    def _json(self, node: ast.Attribute) -> Iterator[Broken]:
        call = self._parents.get(node)
        is_called = isinstance(call, ast.Call) and call.func is node
        around = self._parents.get(call) if is_called and call is not None else call
        if not (is_called and isinstance(around, ast.Attribute) and around.attr == "with_variant"):
            yield node, "json", ""


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _verbs(node: ast.expr) -> set[str]:
    """The methods of a chain of calls, e.g. `{update, where, values}`."""
    verbs: set[str] = set()
    while isinstance(node, (ast.Call, ast.Attribute)):
        if isinstance(node, ast.Call):
            verbs.add(_name(node.func))
            node = node.func
        else:
            node = node.value
    return verbs
