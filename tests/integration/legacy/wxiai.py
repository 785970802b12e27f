"""wxiai's own tables, as different programs and scripts made them, filled with made-up rows.

Each layout is a set of changes to the chain's columns. MONEY and WHEN differ between databases, and a name in
quotes has capitals.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

_TYPES = {"sqlite": {"WHEN": "DATETIME", "JSON": "JSON"}, "postgresql": {"WHEN": "TIMESTAMP", "JSON": "JSON"}}
_TASK = "id VARCHAR(255), user_id VARCHAR(255), action VARCHAR(50), status VARCHAR(50), prompt TEXT"
_TIMES = "created_at WHEN, updated_at WHEN"

CHAIN: dict[str, str] = {
    "credit": "id VARCHAR, user_id VARCHAR, credit NUMERIC(24,12), updated_at BIGINT, created_at BIGINT",
    "credit_log": "id VARCHAR, user_id VARCHAR, credit NUMERIC(24,12), detail JSON, created_at BIGINT",
    "trade_ticket": "id VARCHAR, user_id VARCHAR, amount NUMERIC(24,12), detail JSON, created_at BIGINT",
    "redemption_code": "code VARCHAR, purpose VARCHAR, user_id VARCHAR, amount NUMERIC(24,12), created_at BIGINT,"
    " expired_at BIGINT, received_at BIGINT",
    "mj_config": f"id INTEGER, enabled BOOLEAN, base_url VARCHAR(500), api_key TEXT, modes JSON,"
    f" max_concurrent_tasks INTEGER, {_TIMES}",
    "mj_credits": "id VARCHAR(50), user_id VARCHAR(50), amount INTEGER, balance INTEGER, reason VARCHAR(200),"
    " task_id VARCHAR(50), created_at WHEN",
    "mj_tasks": f"{_TASK}, mode VARCHAR(50), credits_cost INTEGER, submit_time WHEN, start_time WHEN,"
    f" finish_time WHEN, progress VARCHAR(20), image_url TEXT, fail_reason TEXT, properties JSON, buttons JSON,"
    f" parent_task_id VARCHAR(50), {_TIMES}, cloud_image_url TEXT",
    "kling_config": f"id INTEGER, enabled BOOLEAN, base_url VARCHAR(500), api_key TEXT, credits_per_std_5s INTEGER,"
    f" credits_per_std_10s INTEGER, credits_per_pro_5s INTEGER, credits_per_pro_10s INTEGER,"
    f" model_credits_config JSON, max_concurrent_tasks INTEGER, detected_api_path VARCHAR(200), {_TIMES}",
    "kling_tasks": f"{_TASK}, external_task_id VARCHAR(100), task_status_msg TEXT, model_name VARCHAR(100),"
    f" negative_prompt TEXT, cfg_scale FLOAT, mode VARCHAR(20), duration VARCHAR(10), aspect_ratio VARCHAR(20),"
    f" input_image TEXT, credits_cost INTEGER, submit_time WHEN, start_time WHEN, finish_time WHEN, video_url TEXT,"
    f' fail_reason TEXT, properties JSON, progress VARCHAR(20), {_TIMES}, "serviceType" VARCHAR(50),'
    " cloud_video_url TEXT",
    "jimeng_config": f"id INTEGER, enabled BOOLEAN, base_url TEXT, api_key TEXT, credits_per_5s INTEGER,"
    f" credits_per_10s INTEGER, {_TIMES}",
    "jimeng_tasks": f"{_TASK}, duration VARCHAR(10), aspect_ratio VARCHAR(10), image_url TEXT, input_image TEXT,"
    f" external_task_id VARCHAR(255), video_url TEXT, progress VARCHAR(50), fail_reason TEXT, credits_cost INTEGER,"
    f' submit_time WHEN, complete_time WHEN, {_TIMES}, "serviceType" VARCHAR(50), cloud_video_url TEXT,'
    " watermark BOOLEAN",
    "dreamwork_config": f"id INTEGER, enabled BOOLEAN, base_url VARCHAR(500), api_key TEXT,"
    f" credits_per_generation INTEGER, {_TIMES}",
    "dreamwork_tasks": f"{_TASK}, model VARCHAR(100), size VARCHAR(20), guidance_scale FLOAT, seed INTEGER,"
    f" input_image TEXT, credits_cost INTEGER, submit_time WHEN, finish_time WHEN, progress VARCHAR(20),"
    f" image_url TEXT, fail_reason TEXT, properties JSON, {_TIMES}, cloud_image_url TEXT",
    "flux_config": f"id VARCHAR(255), api_key TEXT, base_url VARCHAR(500), enabled BOOLEAN,"
    f" max_concurrent_tasks INTEGER, {_TIMES}, model_credits TEXT",
    "flux_tasks": f"id VARCHAR(255), user_id VARCHAR(255), request_id VARCHAR(255), model VARCHAR(100),"
    f" task_type VARCHAR(20), status VARCHAR(20), prompt TEXT, num_images INTEGER, seed INTEGER, image_url TEXT,"
    f" cloud_image_url TEXT, error_message TEXT, flux_response JSON, {_TIMES}, completed_at WHEN,"
    " input_image_urls JSON, image_size JSON",
    "flux_credits": f"id VARCHAR(255), user_id VARCHAR(255), credits_balance INTEGER, total_used INTEGER, {_TIMES}",
    "kling_lip_sync_tasks": f"id VARCHAR(50), user_id VARCHAR(50), status VARCHAR(50), mode VARCHAR(20),"
    f" video_input TEXT, text TEXT, video_url TEXT, fail_reason TEXT, credits_cost INTEGER, finish_time WHEN,"
    f" progress VARCHAR(10), properties JSON, {_TIMES}",
    "cloud_storage_config": f"id VARCHAR(255), provider VARCHAR(50), enabled BOOLEAN, secret_id TEXT,"
    f" secret_key TEXT, region VARCHAR(50), bucket VARCHAR(255), domain TEXT, {_TIMES}",
    "generated_files": f"id VARCHAR(255), user_id VARCHAR(255), file_type VARCHAR(20), cloud_url TEXT,"
    f" source_type VARCHAR(50), source_task_id VARCHAR(255), status VARCHAR(20), file_metadata JSON, {_TIMES}",
}


@dataclass(frozen=True)
class Layout:
    """Which tables there are, and how their columns differ from the chain's. A changed type of None: no column."""

    without: tuple[str, ...] = ()
    changed: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)

    def columns(self, table: str) -> dict[str, str]:
        """Names and types, in quotes where they need some."""
        parts = [part.strip().rsplit(" ", 1) for part in CHAIN[table].split(", ")]
        kinds: dict[str, str | None] = {name.strip('"'): kind for name, kind in parts}
        kinds |= self.changed.get(table, {})
        return {name: kind for name, kind in kinds.items() if kind is not None}

    @property
    def tables(self) -> list[str]:
        return [table for table in CHAIN if table not in self.without]


_NO_CLOUD = {
    "kling_tasks": {"cloud_video_url": None},
    "jimeng_tasks": {"cloud_video_url": None, "watermark": None},
    "dreamwork_tasks": {"cloud_image_url": None},
}
_NO_SERVICE = {"kling_tasks": {"serviceType": None}, "jimeng_tasks": {"serviceType": None}}
LAYOUTS: dict[str, Layout] = {
    "chain": Layout(),
    "create_all": Layout(
        changed={
            **_NO_SERVICE,
            "credit": {"credit": "NUMERIC(8,0)"},
            "trade_ticket": {"amount": "NUMERIC(8,0)"},
            "redemption_code": {"amount": "NUMERIC(8,0)"},
            "flux_config": {"model_credits": "JSON"},
        }
    ),
    "half applied": Layout(without=("kling_lip_sync_tasks",), changed=_NO_CLOUD),
    "start-up fallback": Layout(
        without=tuple(
            table for table in CHAIN if not table.startswith(("kling_tasks", "kling_config", "jimeng"))
        )
    ),
    "by hand": Layout(
        without=("flux_tasks", "flux_config", "flux_credits", "kling_lip_sync_tasks"),
        changed={
            "mj_tasks": {"credits_cost": "FLOAT", "progress": "INTEGER", "buttons": None},
            "kling_tasks": {
                "credits_cost": "FLOAT",
                "model_name": None,
                "model": "VARCHAR(100)",
                "image_url": "TEXT",
            },
            "jimeng_tasks": {
                "credits_cost": "FLOAT",
                "video_url": None,
                "duration": None,
                "external_task_id": None,
            },
            "dreamwork_tasks": {"credits_cost": "FLOAT", "progress": "INTEGER"},
            "cloud_storage_config": {"domain": None, "cdn_url": "TEXT"},
        },
    ),
    "first dreamwork": Layout(
        changed={
            "dreamwork_tasks": {
                "input_image": None,
                "progress": None,
                "properties": None,
                "image_base64": "TEXT",
                "response_data": "JSON",
            }
        }
    ),
}

# ---------------------------------------------------------------- rows

CLOUD = "https://wx-ai-1300000000.cos.ap-shanghai.myqcloud.com/generated"
CDN = "https://media.example.com/generated"
MJ, KLING, FAL = "https://mj-proxy.example.com", "https://api.klingai.com", "https://queue.fal.run"
SECRETS = ("mj-secret-key", "kling-ak", "kling-sk", "fal-secret-key", "AKIDsecret", "cos-secret-key")
AT, LOCAL = "2025-08-20 10:00:00", "2025-08-20 18:01:30.250000"  # a host at UTC+8
DONE = "2025-08-20 10:01:30"

CONFIGS: dict[str, list[dict[str, Any]]] = {
    "mj_config": [{"id": 1, "enabled": True, "base_url": MJ, "api_key": "mj-secret-key", "max_concurrent_tasks": 5,
                   "modes": {"turbo": {"credits": 12}, "fast": {"credits": 6}}}],
    "kling_config": [{"id": 1, "enabled": True, "base_url": KLING, "api_key": "kling-ak:kling-sk",
                      "credits_per_std_5s": 55, "detected_api_path": "/kling/v1/videos/text2video",
                      "model_credits_config": {"kling-v2-master": {"pro": {"5": 400}}}}],
    "jimeng_config": [{"id": 1, "enabled": True, "base_url": "https://ark.example.com", "api_key": "jimeng-key",
                       "credits_per_5s": 33}],
    "dreamwork_config": [{"id": 1, "enabled": True, "base_url": "https://ark.example.com", "api_key": "ark-key",
                          "credits_per_generation": 9}],
    "flux_config": [{"id": "f", "enabled": False, "base_url": FAL, "api_key": "fal-secret-key",
                     "model_credits": {"fal-ai/flux-1/dev": 12, "fal-ai/flux-1/dev/image-to-image": 99}}],
    "cloud_storage_config": [{"id": "c", "provider": "tencent-cos", "enabled": True, "secret_id": "AKIDsecret",
                              "secret_key": "cos-secret-key", "region": "ap-shanghai", "bucket": "wx-ai-1300000000",
                              "domain": "media.example.com", "cdn_url": "media.example.com"}],
}  # fmt: skip


def balances(users: list[str]) -> Iterator[dict[str, Any]]:
    """One each but for every twentieth: whole, fractional, empty, a debt, NULL."""
    amounts = ["100", "12.5", "0", "3837.000000000001", "99999.5", "7", "0.4"]
    for number, user in enumerate(users):
        amount = {3: "-37.25", 4: None}.get(number, amounts[number % len(amounts)])
        if number % 20 != 19:
            yield {"id": f"c{number}", "user_id": user, "credit": amount, "updated_at": 1, "created_at": 1}


def tasks(table: str, count: int, users: list[str]) -> Iterator[dict[str, Any]]:
    """Tasks in every state, with their results in every place, of users who are there, gone, or nobody."""
    states = _STATES[table]
    for number in range(count):
        status, place = states[number % len(states)]
        owner = (
            None
            if number % 41 == 40 and table in ("mj_tasks", "dreamwork_tasks")
            else users[number % len(users)]
        )
        row: dict[str, Any] = {
            "id": f"17{number:011}" if table == "mj_tasks" else f"{table}-{number}",
            "user_id": "gone" if number % 37 == 36 else owner,
            "status": status, "prompt": f"a fox 狐狸 {number}", "mode": "std", "duration": "5", "credits_cost": 5,
            "created_at": AT, "updated_at": LOCAL, "submit_time": AT, "finish_time": LOCAL, "complete_time": DONE,
            "completed_at": DONE, "progress": 37, "task_type": "text_to_image", "size": "1024x768",
            "action": ("IMAGINE", "BLEND", "ACTION")[number % 3] if table == "mj_tasks"
            else "IMAGE_TO_VIDEO" if number % 4 == 3 else "TEXT_TO_VIDEO",
            "model": "fal-ai/flux-1/dev", "model_name": "kling-v1-6", "num_images": 2, "image_size": "square_hd",
            "request_id": f"req-{number}", "external_task_id": f"ext-{number}" if place != "never sent" else None,
            "buttons": [{"customId": "MJ::JOB::upsample::1::abc", "label": "U1"}] if status == "SUCCESS" else None,
            "fail_reason": "banned prompt" if number % 2 else None, "watermark": False,
            "video_input": f"{CLOUD}/in.mp4",
        }  # fmt: skip
        yield row | _results(table, number, place)


def _results(table: str, number: int, place: str) -> dict[str, Any]:
    ending = "jpg" if table in ("mj_tasks", "dreamwork_tasks", "flux_tasks") else "mp4"
    theirs, ours = (
        f"https://cdn.provider.example/{table}/{number}.{ending}",
        f"{CLOUD}/{table}/{number}.{ending}",
    )
    cloud, provider = {
        "cloud": (ours, theirs),
        "overwritten": (None, ours),
        "domain": (None, f"{CDN}/{table}/{number}.{ending}"),
        "provider": (None, theirs),
        "files": (None, theirs),
    }.get(place, (None, None))
    found: dict[str, Any] = {
        "cloud_image_url": cloud, "cloud_video_url": cloud, "image_url": provider, "video_url": provider,
    }  # fmt: skip
    if table == "flux_tasks" and provider:
        second = f"https://cdn.provider.example/{table}/{number}-2.jpg"
        found["flux_response"] = {"images": [{"url": provider}, {"url": second}]}
    if table in ("kling_tasks", "jimeng_tasks"):
        found["image_url"] = f"{CLOUD}/input.png"  # what went in
    return found


_PLACES = ("cloud", "overwritten", "provider", "domain", "files", "cloud")
_STATES: dict[str, list[tuple[str | None, str]]] = {
    "mj_tasks": [*(("SUCCESS", place) for place in _PLACES), ("SUCCESS", ""), ("FAILURE", ""), ("FAILED", ""),
                 ("CANCEL", ""), ("IN_PROGRESS", ""), ("SUBMITTED", ""), ("MODAL", ""), (None, "")],
    "kling_tasks": [*(("succeed", place) for place in _PLACES), ("failed", ""), ("processing", ""),
                    ("SUBMITTED", "never sent"), (None, "")],
    "jimeng_tasks": [*(("succeed", place) for place in _PLACES), ("failed", ""), ("processing", ""),
                     ("submitted", "never sent")],
    "dreamwork_tasks": [*(("SUCCESS", place) for place in _PLACES), ("FAILURE", ""), ("IN_PROGRESS", "")],
    "flux_tasks": [*(("SUCCESS", place) for place in _PLACES), ("SUCCESS", ""), ("FAILED", ""), ("CANCELLED", ""),
                   ("IN_PROGRESS", "")],
    "kling_lip_sync_tasks": [("succeed", "overwritten"), ("succeed", "provider"), ("failed", ""), ("processing", "")],
}  # fmt: skip
_SOURCES = {"mj_tasks": "midjourney", "kling_tasks": "kling", "jimeng_tasks": "jimeng", "dreamwork_tasks": "dreamwork",
            "flux_tasks": "flux"}  # fmt: skip
# How many of 2,500 tasks each table has.
SHARES = {"mj_tasks": 800, "kling_tasks": 450, "jimeng_tasks": 400, "dreamwork_tasks": 250, "flux_tasks": 550,
          "kling_lip_sync_tasks": 50}  # fmt: skip


def build(engine: sa.Engine, layout: Layout, *, users: int, tasks_each: Mapping[str, int]) -> None:
    """Make the tables beside ours and fill them."""
    people = [f"legacy-user-{number}" for number in range(users)]
    with engine.begin() as connection:
        for table in layout.tables:
            _create(connection, table, layout.columns(table))
        _insert(connection, layout, "user", [_user(person) for person in people])
        for table, rows in CONFIGS.items():
            _insert(connection, layout, table, rows)
        _insert(connection, layout, "credit", list(balances([*people, "gone"])))
        _insert(connection, layout, "redemption_code", list(_codes(people)))
        _insert(connection, layout, "trade_ticket", list(_tickets(people)))
        for table in ("mj_credits", "flux_credits"):
            _insert(connection, layout, table, list(_ledgers(people)))
        for table, count in tasks_each.items():
            rows = list(tasks(table, count, people))
            _insert(connection, layout, table, rows)
            _insert(connection, layout, "generated_files", list(_files(table, rows)))


def _create(connection: sa.Connection, table: str, columns: Mapping[str, str]) -> None:
    kinds = _TYPES[connection.dialect.name]
    key = next(iter(columns))
    parts = ", ".join(f'"{name}" {kinds.get(kind, kind)}' for name, kind in columns.items())
    connection.exec_driver_sql(f'CREATE TABLE "{table}" ({parts}, PRIMARY KEY ({key}))')


def _insert(connection: sa.Connection, layout: Layout, table: str, rows: list[dict[str, Any]]) -> None:
    if not rows or (table != "user" and table not in layout.tables):
        return
    kinds = dict.fromkeys(rows[0], "") if table == "user" else layout.columns(table)
    names = [name for name in kinds if any(name in row for row in rows)]
    target = sa.table(table, *(sa.column(name, _typed(kinds[name])) for name in names))
    connection.execute(
        target.insert(), [{name: _stored(row.get(name), kinds[name]) for name in names} for row in rows]
    )


def _typed(kind: str) -> Any:
    """JSON values as the ORM writes them; the rest as it comes."""
    return sa.JSON() if kind == "JSON" else sa.Boolean() if kind == "BOOLEAN" else None


def _stored(value: Any, kind: str) -> Any:
    if isinstance(value, (dict, list)) and kind != "JSON":
        return json.dumps(value)
    if kind.startswith("VARCHAR") and isinstance(value, int):
        return f"{value}%"
    return value


def _user(name: str) -> dict[str, Any]:
    return {"id": name, "name": name, "email": f"{name}@example.com", "role": "user", "profile_image_url": "/user.png",
            "created_at": 1, "updated_at": 1, "last_active_at": 1}  # fmt: skip


def _codes(users: list[str]) -> Iterator[dict[str, Any]]:
    for number in range(20):
        used = number % 2 == 0
        yield {"code": f"{number:064x}", "purpose": "gift 🎁", "user_id": users[number % len(users)] if used else None,
               "amount": "12.5", "created_at": 1, "received_at": 5 if used else None}  # fmt: skip


def _tickets(users: list[str]) -> Iterator[dict[str, Any]]:
    for number in range(10):
        paid = {"callback": {"trade_status": "TRADE_SUCCESS"}}
        yield {"id": f"20250820.{number:032x}", "user_id": users[number % len(users)], "amount": "9.9",
               "detail": paid if number % 2 else {"code": -1}, "created_at": 1}  # fmt: skip


def _ledgers(users: list[str]) -> Iterator[dict[str, Any]]:
    for number in range(6):
        yield {"id": f"l{number}", "user_id": users[number % len(users)], "amount": 100, "balance": 100,
               "credits_balance": 70, "total_used": 30, "created_at": AT, "updated_at": AT}  # fmt: skip


def _files(table: str, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Uploaded copies that the task never heard of."""
    places = [place for _, place in _STATES[table]]
    for number, row in enumerate(rows):
        if places[number % len(places)] == "files" and table in _SOURCES:
            yield {"id": f"{table}-f{number}", "user_id": "x", "file_type": "image", "status": "uploaded",
                   "cloud_url": f"{CLOUD}/found/{table}/{number}.jpg", "source_type": _SOURCES[table],
                   "source_task_id": row["id"], "created_at": AT, "updated_at": AT}  # fmt: skip
