"""`new`: the revision that the models ask for, checked, released, and applied to both databases."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from migrations.chain import Chain
from migrations.errors import Refused
from migrations.lint_revision import read
from migrations.new import new
from tests.infrastructure.environment import clean_environment
from tests.migrations.trees import copy_rooms, migrations, run

USERS = Path("common/models/users.py")
PHONE = "    phone: Mapped[str | None] = mapped_column(String(64))\n"
NICKNAME = "    nickname: Mapped[str | None] = mapped_column(String(64))\n"
FRIEND = '''
NOTED = text("note IS NOT NULL")

class Friend(Base):
    """Two that know each other."""

    __tablename__ = "friend"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(255), unique=True)
    since: Mapped[datetime] = mapped_column(UtcDateTime)
    note: Mapped[Any] = mapped_column(Json, nullable=True)
    __table_args__ = (
        Index("ix_friend_known", "name", since.desc(), sqlite_where=NOTED, postgresql_where=NOTED),
    )
'''


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return copy_rooms(tmp_path / "tree")


def add_line(tree: Path, line: str, *, imports: str = "") -> None:
    """Put a line below `User.phone`."""
    path = tree / USERS
    path.write_text(imports + path.read_text().replace(PHONE, PHONE + line))


def drafted(tree: Path, message: str = "add user nickname") -> Path:
    done = migrations(tree, "new", message, "--json")
    assert done.returncode == 0, done.stderr
    return tree / json.loads(done.stdout)["path"]


@pytest.fixture(scope="module")
def nickname(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drafted revision of a nickname, in a tree that nobody changes any more."""
    tree = copy_rooms(tmp_path_factory.mktemp("nickname") / "tree")
    add_line(tree, NICKNAME)
    return drafted(tree)


@pytest.fixture(scope="module")
def friends(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drafted revision of a table, in a tree that nobody changes any more."""
    tree = copy_rooms(tmp_path_factory.mktemp("friends") / "tree")
    path = tree / USERS
    path.write_text(
        path.read_text()
        .replace("import BigInteger", "import text, ForeignKey, BigInteger")
        .replace("Base, Shared", "Base, Json, Shared")
        + FRIEND
    )
    return drafted(tree, "add friends")


def tree_of(revision: Path) -> Path:
    return revision.parents[2]


def columns(url: str, table: str) -> dict[str, str]:
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"), poolclass=sa.NullPool)
    with engine.connect() as connection:
        return {item["name"]: str(item["type"]) for item in sa.inspect(connection).get_columns(table)}


@pytest.mark.xdist_group("nickname")
def test_a_column_from_model_to_a_revision(nickname: Path) -> None:
    tree, text = tree_of(nickname), nickname.read_text()
    assert re.fullmatch(r"[0-9a-f]{12}_add_user_nickname\.py", nickname.name)
    assert (
        'op.add_column_if_missing("user", sa.Column("nickname", sa.String(length=64), nullable=True))' in text
    )
    assert '"""Nothing: dropping would lose data.' in text
    assert (tree / "migrations/HEAD").read_text() == f"{nickname.name[:12]}\n"
    assert migrations(tree, "lint").stdout == "clean\n"


@pytest.mark.xdist_group("nickname")
def test_a_column_from_a_revision_to_the_database(nickname: Path, at_head_url: str) -> None:
    upgraded = migrations(tree_of(nickname), "upgrade", DATABASE_URL=at_head_url, MIGRATION_BACKUP="off")
    assert (upgraded.returncode, upgraded.stdout) == (0, f"current: {nickname.name[:12]}\n"), upgraded.stderr
    assert "INFO  [migrations.operations] added column user.nickname" in upgraded.stderr
    assert columns(at_head_url, "user")["nickname"] == "VARCHAR(64)"


@pytest.mark.xdist_group("nickname")
def test_a_column_that_is_there_already_is_told_and_one_of_another_type_refused(
    nickname: Path, at_head_url: str
) -> None:
    tree = tree_of(nickname)
    engine = sa.create_engine(
        at_head_url.replace("postgresql://", "postgresql+psycopg://"), poolclass=sa.NullPool
    )
    with engine.begin() as connection:
        connection.exec_driver_sql('ALTER TABLE "user" ADD COLUMN nickname INTEGER')
    given = {"DATABASE_URL": at_head_url, "MIGRATION_BACKUP": "off"}
    refused = migrations(tree, "upgrade", **given)
    assert refused.returncode == 5
    assert "user.nickname is INTEGER, not VARCHAR(64)" in refused.stderr
    with engine.begin() as connection:
        connection.exec_driver_sql('ALTER TABLE "user" DROP COLUMN nickname')
        connection.exec_driver_sql('ALTER TABLE "user" ADD COLUMN nickname TEXT')
    upgraded = migrations(tree, "upgrade", **given)
    assert upgraded.returncode == 0, upgraded.stderr
    assert "INFO  [migrations.operations] column user.nickname is there already" in upgraded.stderr


@pytest.mark.xdist_group("friends")
def test_a_table_with_everything_that_may_hang_on_it(friends: Path, at_head_url: str) -> None:
    tree, text = tree_of(friends), friends.read_text()
    assert 'sa.Column("since", sa.DateTime(timezone=True), nullable=False)' in text
    assert 'sa.JSON().with_variant(JSONB(), "postgresql")' in text
    assert "from sqlalchemy.dialects.postgresql import JSONB" in text
    assert migrations(tree, "lint").stdout == "clean\n"
    done = migrations(tree, "upgrade", DATABASE_URL=at_head_url, MIGRATION_BACKUP="off")
    assert done.returncode == 0, done.stderr
    engine = sa.create_engine(
        at_head_url.replace("postgresql://", "postgresql+psycopg://"), poolclass=sa.NullPool
    )
    with engine.connect() as connection:
        inspector = sa.inspect(connection)
        indexes = {str(item["name"]) for item in inspector.get_indexes("friend")}
        [key] = inspector.get_foreign_keys("friend")
    assert indexes >= {"ix_friend_job_id", "ix_friend_known"}
    assert (key["name"], key["options"]) == ("fk_friend_job_id", {"ondelete": "CASCADE"})
    assert set(columns(at_head_url, "friend")) == {"id", "job_id", "name", "since", "note"}


def test_models_that_have_nothing_new_leave_the_body_to_the_author(tree: Path) -> None:
    done = migrations(tree, "new", "add something by hand")
    assert done.returncode == 0, done.stderr
    assert "is yet to be written" in done.stdout
    [path] = (tree / "migrations/versions").glob("*_add_something_by_hand.py")
    assert "op.add_column_if_missing" in path.read_text()
    assert [item.rule for item in read(path)] == ["nothing"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "    level: Mapped[int] = mapped_column(BigInteger)\n",
            "user.level must be nullable or have a constant server_default",
        ),
        (
            "    job_id: Mapped[str | None] = mapped_column(String(32), ForeignKey('job.id'))\n",
            "user.job_id must not be a foreign key",
        ),
        (
            "    nickname: Mapped[str | None] = mapped_column(String(64), unique=True)\n",
            "more than an addition (add constraint on user)",
        ),
    ],
)
def test_what_rows_would_not_bear_is_refused(tree: Path, line: str, said: str) -> None:
    add_line(tree, line)
    path = tree / USERS
    path.write_text(path.read_text().replace("import BigInteger", "import ForeignKey, BigInteger"))
    before = sorted((tree / "migrations").rglob("*.py"))
    done = migrations(tree, "new", "add something")
    assert done.returncode == 1
    assert said in done.stderr
    assert sorted((tree / "migrations").rglob("*.py")) == before


def test_a_constant_default_makes_not_null_bearable(tree: Path) -> None:
    add_line(tree, '    level: Mapped[int] = mapped_column(BigInteger, server_default="0")\n')
    assert 'server_default="0", nullable=False' in drafted(tree).read_text()
    assert migrations(tree, "lint").stdout == "clean\n"


def test_a_changed_type_is_refused(tree: Path) -> None:
    path = tree / USERS
    path.write_text(
        path.read_text().replace(PHONE, "    phone: Mapped[int | None] = mapped_column(BigInteger)\n")
    )
    done = migrations(tree, "new", "add nothing")
    assert done.returncode == 1
    assert "more than an addition (user.phone is another one)" in done.stderr


@pytest.mark.parametrize("message", ["", "  ", "!!!", 'say "hello"'])
def test_a_name_in_plain_words_is_needed(message: str, folder: Path) -> None:
    with pytest.raises(Refused, match="plain words"):
        new(Chain(folder), message)


def test_two_heads_are_refused(folder: Path) -> None:
    (folder / "versions" / "merge_heads_final.py").unlink()
    for path in (folder / "versions").glob("*.py"):
        if "merge_heads_final" in path.read_text():
            path.write_text(path.read_text().replace('"merge_heads_final"', '"abc123def456"'))
    with pytest.raises(Refused, match="2 heads"):
        new(Chain(folder), "add something")


def test_a_chain_that_cannot_be_loaded_is_refused(folder: Path) -> None:
    (folder / "versions" / "broken.py").write_text("import nowhere_to_be_found")
    with pytest.raises(Refused, match="nowhere_to_be_found"):
        new(Chain(folder), "add something")


# ---------------------------------------------------------------- two branches


@pytest.fixture
def git(tree: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Git in the tree, with everything committed on `main`."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.com", "GIT_CONFIG_GLOBAL": "/dev/null"}
        who |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.com", "GIT_CONFIG_NOSYSTEM": "1"}
        return subprocess.run(
            ["git", *arguments],
            cwd=tree,
            env=clean_environment(who),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    call("init", "--quiet", "--initial-branch=main")
    call("add", "--all")
    assert call("commit", "--quiet", "-m", "start").returncode == 0
    return call


def test_two_branches_that_add_a_revision_conflict_in_git(
    tree: Path, git: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    for branch in ("one", "two"):
        git("checkout", "--quiet", "-b", branch, "main")
        drafted(tree, f"add {branch}")
        git("add", "--all")
        assert git("commit", "--quiet", "-m", branch).returncode == 0
    merged = git("merge", "one")
    assert merged.returncode == 1
    assert "CONFLICT (content): Merge conflict in migrations/HEAD" in merged.stdout
    # Whoever resolves only the file's conflict is stopped by lint.
    git("checkout", "--quiet", "--ours", "migrations/HEAD")
    said = migrations(tree, "lint")
    assert said.returncode == 1
    assert "HEAD:1: heads: the chain has 2 heads" in said.stdout
    assert run(tree, "-c", "import common.db.schema").returncode == 0
