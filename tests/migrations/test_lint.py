"""`lint`: a planted violation of every rule is found, by file, line and rule; what is allowed is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from migrations import lint as linting
from migrations.chain import HERE, Chain
from migrations.lint import lint
from migrations.lint_revision import RULES, Finding, read
from migrations.new import HEAD
from tests.infrastructure.environment import ROOT
from tests.migrations.conftest import add_revision
from tests.migrations.trees import copy_rooms, migrations

HERE_LINE = 17  # of the first line of a planted body


@pytest.fixture
def folder(folder: Path) -> Path:
    """The chain's copy, whose HEAD already names the revision that a test plants."""
    (folder / HEAD).write_text("aaaa00000001\n")
    return folder


def planted(folder: Path, body: str) -> list[Finding]:
    return lint(add_revision(folder, "aaaa00000001", body))


def told(found: list[Finding]) -> set[tuple[int, str]]:
    """Line of the body and rule; what is removed is missed by the models, too."""
    lines = [item for item in found if item.rule != "drift"]
    assert {item.file for item in lines} <= {"aaaa00000001_test.py"}, found
    return {(item.line - HERE_LINE + 1, item.rule) for item in lines}


ADD = 'op.add_column_if_missing("user", sa.Column("a", {}))'

# Rule → a body with the violation on its last line. Without the rule's own word: squawk's rules, too.
VIOLATIONS = [
    ("drop", 'op.drop_column("job", "webhook_url")', {"ban-drop-column"}),
    ("drop", 'op.drop_table("webhook_delivery")', {"ban-drop-table"}),
    ("drop", 'op.drop_index("ix_user_phone", "user")', set()),
    ("drop", 'op.drop_constraint("ck", "user")', set()),
    ("drop", 'op.rename_table("webhook_secret", "other")', {"renaming-table"}),
    ("drop", 'sa.table("job").drop(op.get_bind())', set()),
    ("drop", "op.execute('ALTER TABLE job DROP COLUMN webhook_url')", {"ban-drop-column"}),
    ("drop", "op.execute('alter table job rename column webhook_url to hook')", {"renaming-column"}),
    ("drop", "op.execute(sa.text('TRUNCATE job_event'))", set()),
    ("alter", 'op.alter_column("user", "name", type_=sa.Text())', {"changing-column-type"}),
    ("alter", 'op.alter_column("user", "phone", nullable=False)', {"adding-not-nullable-field"}),
    ("alter", 'op.alter_column("user", "phone", new_column_name="telephone")', {"renaming-column"}),
    ("alter", "op.execute('ALTER TABLE \"user\" ALTER COLUMN name TYPE text')", {"changing-column-type"}),
    ("not-null", ADD.format("sa.Text(), nullable=False"), {"adding-required-field"}),
    ("not-null", "empty = None\n" + ADD.format("sa.Text(), nullable=False, server_default=empty"), set()),
    ("volatile-default", ADD.format("sa.DateTime(), server_default=sa.func.clock_timestamp()"), set()),
    ("volatile-default", ADD.format("sa.Text(), server_default=sa.text('gen_random_uuid()')"), set()),
    ("unchecked", 'op.add_column("user", sa.Column("a", sa.Text()))', set()),
    ("unchecked", 'op.create_table("other", sa.Column("id", sa.Integer()))', set()),
    ("unchecked", "op.execute('CREATE TABLE other (id INTEGER)')", set()),
    ("unchecked", "op.execute('ALTER TABLE job ADD COLUMN a TEXT')", set()),
    ("blocking-index", 'op.create_index("ix_x", "job", ["model"])', {"require-concurrent-index-creation"}),
    ("blocking-index", "op.execute('CREATE UNIQUE INDEX ix_x ON job (model)')", set()),
    ("constraint", 'op.create_foreign_key("fk", "job", "user", ["user_id"], ["id"])', set()),
    ("constraint", 'op.create_unique_constraint("uq", "job", ["model"])', {"disallowed-unique-constraint"}),
    ("constraint", 'op.create_check_constraint("ck", "job", "price > 0")', {"constraint-missing-not-valid"}),
    ("constraint", ADD.format("sa.Text(), unique=True"), set()),
    ("constraint", ADD.format("sa.String(32), sa.ForeignKey('job.id')"), {"adding-foreign-key-constraint"}),
    ("rebuild", 'with op.batch_alter_table("job", recreate="always"):\n    pass', set()),
    ("unbounded", "op.execute('UPDATE job SET progress = 1')", set()),
    ("unbounded", "op.execute('DELETE FROM job_event')", set()),
    ("unbounded", "op.execute(sa.table('job', sa.column('late')).update().values(late=True))", set()),
    ("opaque", "which = input\nop.execute(which())", set()),
    ("opaque", "op.execute(f'UPDATE {os.name} SET a = 1 WHERE b')", set()),
    ("opaque", 'op.add_column_if_missing("user", os.environ["x"])', set()),
    ("json", ADD.format("sa.JSON()"), set()),
    ("transaction", "op.get_bind().commit()", set()),
    ("transaction", "op.execute('COMMIT')", set()),
    ("import", "import common.models", set()),
    ("import", "from workers.app import app", set()),
    ("import", "import requests", set()),
    ("nothing", "pass", set()),
]


@pytest.mark.parametrize(
    ("rule", "body", "others"), VIOLATIONS, ids=[f"{r}: {b[:40]}" for r, b, _ in VIOLATIONS]
)
def test_a_violation_is_named_by_file_line_and_rule(
    rule: str, body: str, others: set[str], folder: Path
) -> None:
    lines = body.splitlines()
    number = 0 if rule == "nothing" else 1 if rule == "rebuild" else len(lines)
    found = told(read(Path(add_revision(folder, "aaaa00000001", body).files["aaaa00000001"])))
    assert (number, rule) in found


@pytest.mark.parametrize(
    ("body", "rules"),
    [(body, rules) for _, body, rules in VIOLATIONS if rules],
    ids=lambda value: str(value)[:50],
)
def test_squawk_judges_the_sql_and_its_word_is_traced_to_the_line(
    body: str, rules: set[str], folder: Path
) -> None:
    found = told(planted(folder, body))
    assert {(len(body.splitlines()), rule) for rule in rules} <= found


def test_every_rule_has_its_violation() -> None:
    assert {rule for rule, _, _ in VIOLATIONS} | {"downgrade"} == set(RULES)


ALLOWED = """
key = sa.Column("id", sa.Integer(), primary_key=True)
op.create_table_if_missing("other", key, sa.Column("n", sa.Text(), nullable=False))
op.create_index_if_missing("ix_other_n", "other", ["n"])
op.create_index_if_missing("ix_job_model", "job", ["model"])
op.add_column_if_missing("job", sa.Column("a", sa.Text()))
op.add_column_if_missing("job", sa.Column("b", sa.Integer(), nullable=False, server_default="0"))
op.add_column_if_missing("job", sa.Column("c", sa.Boolean(), nullable=False, server_default=sa.false()))
op.add_column_if_missing("job", sa.Column("d", sa.Text(), nullable=False, server_default=sa.text("'none'")))
job = sa.table("job", sa.column("a", sa.Text()), sa.column("id", sa.Text()))
op.execute(job.update().where(job.c.id == "x").values(a="y"))
op.execute("UPDATE job SET a = 'z' WHERE id = 'y'")
op.get_bind().execute(sa.select(sa.literal(1))) if not op.get_context().as_sql else None
"""


def test_what_only_adds_is_clean(folder: Path) -> None:
    """Columns that no model has are for older releases, and no drift."""
    assert planted(folder, ALLOWED) == []


def test_our_own_revisions_are_clean() -> None:
    assert lint(Chain()) == []


@pytest.mark.parametrize("where", ["on the line", "above"])
def test_a_line_may_say_why_it_breaks_a_rule(where: str, folder: Path) -> None:
    reason = "# lint: drop: nobody ever wrote to it"
    drop = 'op.drop_column("job", "webhook_url")'
    body = f"{drop}  {reason}" if where == "on the line" else f"{reason}\n{drop}"
    rules = {rule for _, rule in told(planted(folder, body))}
    assert "drop" not in rules
    assert "ban-drop-column" in rules  # one reason excuses one rule


def test_a_reason_is_needed(folder: Path) -> None:
    body = 'op.drop_column("job", "webhook_url")  # lint: drop:'
    assert "drop" in {rule for _, rule in told(planted(folder, body))}


def test_a_downgrade_does_nothing_and_says_why(folder: Path) -> None:
    chain = add_revision(folder, "aaaa00000001", ALLOWED)
    path = chain.files["aaaa00000001"]
    path.write_text(path.read_text().replace('"""Nothing."""', 'op.drop_column("job", "a")'))
    [found] = lint(Chain(folder))
    assert (found.rule, found.file) == ("downgrade", path.name)


# ---------------------------------------------------------------- the chain


def test_two_heads(folder: Path) -> None:
    add_revision(folder, "aaaa00000001", ALLOWED)
    chain = add_revision(folder, "aaaa00000002", ALLOWED, parent="merge_heads_final")
    assert any(item.rule == "heads" and "2 heads" in item.message for item in lint(chain))


def test_a_head_that_names_another_revision(folder: Path) -> None:
    (folder / HEAD).write_text("d8b04e6f3c19\n")
    assert ("HEAD", 1, "heads") in {(i.file, i.line, i.rule) for i in planted(folder, ALLOWED)}


def test_a_file_that_is_not_named_after_its_revision(folder: Path) -> None:
    path = add_revision(folder, "aaaa00000001", ALLOWED).files["aaaa00000001"]
    path.rename(path.with_name("other.py"))
    assert ("other.py", "name") in {(item.file, item.rule) for item in lint(Chain(folder))}


def test_a_model_line_without_a_revision_is_drift(tmp_path: Path) -> None:
    tree = copy_rooms(tmp_path / "tree")
    path = tree / "common/models/users.py"
    line = "    phone: Mapped[str | None] = mapped_column(String(64))\n"
    path.write_text(path.read_text().replace(line, line + line.replace("phone", "nickname")))
    said = migrations(tree, "lint")
    assert said.returncode == 1
    assert said.stdout.startswith("HEAD:1: drift: no revision adds user.nickname: python -m migrations new")


def test_a_revision_that_cannot_run_is_found_where_it_breaks(folder: Path) -> None:
    found = planted(folder, 'op.add_column_if_missing("nowhere", sa.Column("a", sa.Text()))')
    assert ("aaaa00000001_test.py", HERE_LINE, "broken") in {(i.file, i.line, i.rule) for i in found}


def test_a_chain_that_cannot_be_loaded(folder: Path) -> None:
    (folder / "versions" / "broken.py").write_text("import nowhere_to_be_found")
    [found] = lint(Chain(folder))
    assert (found.rule, "nowhere_to_be_found" in found.message) == ("broken", True)


# ---------------------------------------------------------------- the command


def test_the_command_says_clean(tmp_path: Path) -> None:
    done = migrations(ROOT, "lint", DATABASE_URL=f"sqlite:///{tmp_path}/never.db")
    assert (done.returncode, done.stdout, done.stderr) == (0, "clean\n", "")
    assert not (tmp_path / "never.db").exists()
    assert json.loads(migrations(ROOT, "lint", "--json").stdout) == []


def test_the_command_fails_for_machines_too(tmp_path: Path) -> None:
    tree = copy_rooms(tmp_path / "tree")
    folder = tree / "migrations"
    add_revision(folder, "aaaa00000001", 'op.drop_table("webhook_secret")')
    (folder / HEAD).write_text("aaaa00000001\n")
    done = migrations(tree, "lint", "--json")
    assert done.returncode == 1
    found = {(item["file"], item["line"], item["rule"]) for item in json.loads(done.stdout)}
    assert ("aaaa00000001_test.py", HERE_LINE, "drop") in found


def test_without_squawk_it_does_not_pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linting.shutil, "which", lambda *_, **__: None)
    with pytest.raises(linting.MissingTool, match=r"requirements-dev\.txt"):
        lint(Chain())


def test_make_check_runs_it() -> None:
    assert "@$(BIN)/python -m migrations lint" in (ROOT / "Makefile").read_text()
    assert (HERE / HEAD).read_text().strip() == Chain().aim
