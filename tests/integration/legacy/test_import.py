"""What becomes of wxiai's rows: in every layout, on both databases, once however often it is asked for."""

from __future__ import annotations

import json
import math
import stat
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from common.crypto import unseal
from common.models import Artifact
from common.services.presentation import artifact_object
from tests.integration.legacy import wxiai
from tests.integration.legacy.conftest import Command
from tests.migrations.takeover.contents import Content, check_kept, contents

FEW = {"mj_tasks": 42, "kling_tasks": 20, "jimeng_tasks": 18, "dreamwork_tasks": 42, "flux_tasks": 40,
       "kling_lip_sync_tasks": 8}  # fmt: skip
OURS = ("job", "artifact", "job_attempt", "job_step", "ledger_entry", "credit_account", "provider_account",
        "legacy_record", "app_setting")  # fmt: skip


def rows(engine: sa.Engine, query: str) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(sa.text(query)).mappings())


def count(engine: sa.Engine) -> dict[str, int]:
    return {table: rows(engine, f"SELECT count(*) AS n FROM {table}")[0]["n"] for table in OURS}


def by_legacy_id(engine: sa.Engine, table: str) -> dict[str, Any]:
    """Jobs by the id of the row they were."""
    found = {}
    for job in rows(engine, "SELECT * FROM job"):
        metadata = job["metadata"] if isinstance(job["metadata"], dict) else json.loads(job["metadata"])
        if metadata["legacy"]["table"] == table:
            found[metadata["legacy"]["id"]] = {**job, "legacy": metadata["legacy"]}
    return found


@pytest.mark.parametrize(
    ("name", "url"),
    [
        *((name, "sqlite") for name in wxiai.LAYOUTS),
        ("chain", "postgresql"),
        pytest.param("by hand", "postgresql", marks=pytest.mark.chaos),
    ],
    indirect=["url"],
)
def test_every_layout_once_and_again(name: str, engine: sa.Engine, command: Command) -> None:
    layout = wxiai.LAYOUTS[name]
    wxiai.build(engine, layout, users=60, tasks_each=FEW)
    theirs, before = contents(engine), count(engine)
    dry = command("import-legacy", "--dry-run")
    assert (dry.code, count(engine)) == (0, before)
    done = command("import-legacy")
    assert done.code == 0, done.out + done.err
    assert "complete: all totals match" in done.out
    assert command("ledger", "verify").out == ""
    assert [line for line in command("doctor").out.splitlines() if not line.startswith("redis")] == []
    after = count(engine)
    assert after["job"] == sum(number for table, number in FEW.items() if table in layout.tables)
    again = command("import-legacy")
    assert again.code == 0
    assert count(engine) == after
    assert " new + 0 known" not in again.out.replace("0 new + 0 known", "")
    check_kept(
        Content({table: theirs.rows[table] for table in [*layout.tables, "user"]}, theirs.made), engine
    )
    assert not any(secret in text for secret in wxiai.SECRETS for text in (dry.out, done.out, done.err))


def test_balances_become_opening_grants(engine: sa.Engine, command: Command) -> None:
    wxiai.build(engine, wxiai.LAYOUTS["chain"], users=60, tasks_each={})
    done = command("import-legacy")
    given = list(wxiai.balances([f"legacy-user-{number}" for number in range(60)] + ["gone"]))
    have = {row["user_id"]: row["available"] for row in rows(engine, "SELECT * FROM credit_account")}
    for row in given:
        balance = Decimal(row["credit"] or 0)
        expected = math.ceil(balance) if balance > 0 else 0
        assert have.get(row["user_id"], 0) == expected, row
    assert {"legacy-user-1": 13, "legacy-user-10": 3838}.items() <= have.items()  # a fraction is never lost
    total = sum(Decimal(row["credit"] or 0) for row in given)
    assert f"sum of balances: {format(total.normalize(), 'f')}" in done.out
    assert "1 negative" in done.out
    assert "debts, which end: 37.25" in done.out
    assert f"in the ledger: {sum(have.values())}" in done.out
    assert "legacy-user-3" not in have
    assert "of users who are gone: 1" in done.out


def test_finished_tasks_become_history(engine: sa.Engine, command: Command) -> None:
    wxiai.build(engine, wxiai.LAYOUTS["chain"], users=60, tasks_each=FEW)
    assert command("import-legacy").code == 0
    urls = {row["job_id"]: row["url"] for row in rows(engine, "SELECT * FROM artifact WHERE number = 1")}
    for table in wxiai.SHARES:
        jobs = by_legacy_id(engine, table)
        for number, row in enumerate(wxiai.tasks(table, FEW[table], [f"legacy-user-{n}" for n in range(60)])):
            job = jobs[str(row["id"])]
            place = wxiai._STATES[table][number % len(wxiai._STATES[table])][1]
            folder, ending = (
                f"{wxiai.CLOUD}/{table}",
                "jpg" if table in ("mj_tasks", "dreamwork_tasks", "flux_tasks") else "mp4",
            )
            expected = {
                "cloud": f"{folder}/{number}.{ending}",
                "overwritten": f"{folder}/{number}.{ending}",
                "domain": f"{wxiai.CDN}/{table}/{number}.{ending}",
                "files": f"{wxiai.CLOUD}/found/{table}/{number}.jpg",
            }.get(place)
            assert urls.get(job["id"]) == expected, (table, number)
            assert ("provider_only" in job["legacy"]) == (
                place == "provider" or (table == "flux_tasks" and bool(expected))
            )
            assert job["user_id"] == (row["user_id"] or "legacy:nobody")
            if expected:
                assert (job["status"], job["price"], job["charged"]) == (
                    "succeeded",
                    0,
                    0 if table == "flux_tasks" else 5,
                )
    (finished,) = rows(engine, "SELECT finished_at, created_at FROM job ORDER BY id LIMIT 1")
    assert str(finished["created_at"])[:19] == wxiai.AT
    assert {
        str(row["finished_at"])[11:16]
        for row in rows(engine, "SELECT finished_at FROM job WHERE status = 'succeeded'")
    } == {"10:01"}  # whatever the host's zone was


def test_a_kept_url_is_what_the_api_shows(engine: sa.Engine, command: Command) -> None:
    wxiai.build(engine, wxiai.LAYOUTS["chain"], users=5, tasks_each={"mj_tasks": 1})
    assert command("import-legacy").code == 0
    with Session(engine) as session:
        (artifact,) = session.scalars(sa.select(Artifact))
        assert artifact_object(artifact)["url"] == f"{wxiai.CLOUD}/mj_tasks/0.jpg"
    (job,) = by_legacy_id(engine, "mj_tasks").values()
    shown = json.loads(command("jobs", "show", job["id"]).out)
    assert shown["artifacts"][0]["url"] == f"{wxiai.CLOUD}/mj_tasks/0.jpg"
    assert shown["actions"] == [{"id": "upsample_1", "label": "U1"}]


def _value(column: Any) -> Any:
    """JSON as SQLite (text) and PostgreSQL (a value) give it without a type."""
    return json.loads(column) if isinstance(column, str) else column


def test_what_was_running_is_adopted_or_given_back(engine: sa.Engine, command: Command) -> None:
    wxiai.build(engine, wxiai.LAYOUTS["chain"], users=60, tasks_each=FEW)
    before = {
        row["user_id"]: row for row in wxiai.balances([f"legacy-user-{number}" for number in range(60)])
    }
    assert command("import-legacy").code == 0
    steps = {row["job_id"]: row for row in rows(engine, "SELECT * FROM job_step")}
    live = rows(engine, "SELECT * FROM job WHERE status = 'running'")
    assert {job["id"] for job in live} == steps.keys()
    assert {job["provider"] for job in live} == {"midjourney", "kling", "flux"}
    assert all(row["slots"] == 0 for row in steps.values())
    attempts = {row["job_id"]: row for row in rows(engine, "SELECT * FROM job_attempt")}
    refs = {job_id: row["provider_ref"] for job_id, row in attempts.items()}
    asked_at = {
        job["model"]: _value(attempts[job["id"]]["memo"]) for job in live if job["provider"] == "kling"
    }
    assert asked_at == {
        "kling/text-to-video": {"path": "/v1/videos/text2video"},
        "kling/image-to-video": {"path": "/v1/videos/image2video"},
    }
    for job in live:
        legacy = json.loads(job["metadata"]) if isinstance(job["metadata"], str) else job["metadata"]
        number = legacy["legacy"]["id"].rsplit("-", 1)[-1]
        assert (
            refs[job["id"]]
            == {"midjourney": legacy["legacy"]["id"], "kling": f"ext-{number}", "flux": f"req-{number}"}[
                job["provider"]
            ]
        )
    held = {row["user_id"]: row for row in rows(engine, "SELECT * FROM credit_account")}
    assert sum(row["held"] for row in held.values()) == sum(job["price"] for job in live) > 0
    tables = ("kling_tasks", "jimeng_tasks", "dreamwork_tasks")
    ended = [job for table in tables for job in by_legacy_id(engine, table).values()]
    lost = [job for job in ended if job["status"] == "failed" and job["price"]]
    assert lost
    codes = set()
    for job in lost:
        error = json.loads(job["error"]) if isinstance(job["error"], str) else job["error"]
        codes.add(error["code"])
        kinds = [
            row["kind"]
            for row in rows(engine, f"SELECT kind FROM ledger_entry WHERE job_id = '{job['id']}' ORDER BY id")
        ]
        assert (job["charged"], sorted(kinds)) == (0, ["hold", "release"])
    assert codes == {"submit_unknown", "provider_unavailable"}
    assert before


def test_accounts_prices_and_records(engine: sa.Engine, command: Command, tmp_path: Path) -> None:
    wxiai.build(engine, wxiai.LAYOUTS["chain"], users=30, tasks_each={})
    with engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE catalog_model SET price = '{\"credits\": 77}' WHERE id = 'jimeng/text-to-image'")
        )
    file = tmp_path / "storage.env"
    assert command("import-legacy", "--storage-env", str(file)).code == 0
    accounts = {
        row["name"]: row for row in rows(engine, "SELECT * FROM provider_account WHERE name LIKE 'legacy:%'")
    }
    assert {
        name: (row["base_url"], bool(row["enabled"]), unseal(row["credentials"]))
        for name, row in accounts.items()
    } == {
        "legacy:midjourney": (wxiai.MJ, True, {"api_secret": "mj-secret-key"}),
        "legacy:kling": (f"{wxiai.KLING}/kling", True, {"access_key": "kling-ak", "secret_key": "kling-sk"}),
        "legacy:fal": (wxiai.FAL, False, {"key": "fal-secret-key"}),
    }
    found = {
        row["id"]: row["price"] for row in rows(engine, "SELECT * FROM catalog_model WHERE price IS NOT NULL")
    }
    prices = {name: json.loads(price) if isinstance(price, str) else price for name, price in found.items()}
    prices = {name: price for name, price in prices.items() if price}
    assert prices["midjourney/imagine"]["table"] == {"turbo": 12, "fast": 6, "relax": 2}
    assert prices["flux/dev"] == {"credits": 12}
    assert prices["jimeng/text-to-image"] == {"credits": 77}  # the operator's own stays
    assert prices["jimeng/text-to-video"]["table"]["5"] == 33
    kling = prices["kling/text-to-video"]["table"]
    assert (kling["kling-v1-6/std/5"], kling["kling-v2-master/pro/5"], kling["kling-v1-6/pro/5"]) == (
        55,
        400,
        100,
    )
    kept = rows(engine, "SELECT * FROM legacy_record WHERE source = 'redemption_code'")
    assert len(kept) == 20
    data = json.loads(kept[0]["data"]) if isinstance(kept[0]["data"], str) else kept[0]["data"]
    assert (data["amount"], data["purpose"]) == ("12.5", "gift 🎁")
    assert len(rows(engine, "SELECT * FROM legacy_record WHERE source = 'trade_ticket'")) == 10
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "COS_SECRET_KEY=cos-secret-key\n" in file.read_text()
    assert "COS_PUBLIC_URL=https://media.example.com\n" in file.read_text()
    assert command("import-legacy", "--storage-env", str(file)).code == 1  # never over a file that is there


def test_what_does_not_match_is_said_and_nothing_is_complete(engine: sa.Engine, command: Command) -> None:
    wxiai.build(engine, wxiai.LAYOUTS["chain"], users=5, tasks_each={"mj_tasks": 3})
    with engine.begin() as connection:  # somebody else's entry of that name, for another amount
        connection.execute(
            sa.text(
                "INSERT INTO credit_account (user_id, available, held, updated_at)"
                " VALUES ('legacy-user-0', 1, 0, '2025-01-01')"
            )
        )
        connection.execute(
            sa.text(
                "INSERT INTO ledger_entry (id, user_id, kind, amount, available_delta, held_delta, available_after,"
                " held_after, reference, created_at)"
                " VALUES ('led_x', 'legacy-user-0', 'grant', 1, 1, 0, 1, 0, 'legacy:credit:c0', '2025-01-01')"
            )
        )
    done = command("import-legacy")
    assert done.code == 1
    assert "mismatch: credit c0: 100 credits expected, 1 in the ledger" in done.out
    assert "\ncomplete: " not in done.out
    assert rows(engine, "SELECT * FROM app_setting WHERE key = 'legacy_import'") == []


def test_what_the_legacy_program_changes_afterwards_is_said(engine: sa.Engine, command: Command) -> None:
    wxiai.build(engine, wxiai.LAYOUTS["chain"], users=5, tasks_each={"mj_tasks": 3})
    assert command("import-legacy").code == 0
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE credit SET credit = 1 WHERE id = 'c0'"))
    again = command("import-legacy")
    assert again.code == 0
    assert "changed in the legacy program since the import was complete: 1 rows" in again.out
    assert (
        rows(engine, "SELECT available FROM credit_account WHERE user_id = 'legacy-user-0'")[0]["available"]
        == 100
    )


def test_a_database_without_wxiai_is_refused(engine: sa.Engine, command: Command) -> None:
    done = command("import-legacy")
    assert (done.code, done.out, done.err) == (
        1,
        "",
        "error: There are no tables of wxiai in this database.\n",
    )
