"""The legacy program's settings: accounts at the providers, prices, and the bucket.

Secrets go into the accounts, sealed, and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from common import clock
from common.crypto import CannotDecrypt, seal, unseal
from common.models import CatalogModel, ProviderAccount
from common.providers import pricing
from common.providers.reading import obj
from common.providers.registry import ADAPTERS, MODELS
from common.services.legacy.identity import lasting_id
from common.services.legacy.mappings import flux_model, integer
from common.services.legacy.source import Row, Source, exact, parsed, text
from common.services.legacy.totals import Totals

_FEW = 20  # rows of a table that should have one
_BEGINNING = datetime(2025, 1, 1, tzinfo=UTC)  # ids of accounts must not depend on the day of the import
_PAIR = re.compile(r"^([^\s:,;|]+)[:,;|]([^\s:,;|]+)$")


@dataclass(frozen=True, slots=True)
class LegacyAccount:
    """One provider's settings as an account of ours. `secrets` is no set that its API takes where `usable` is False."""

    config: str
    adapter: str
    base_url: str
    secrets: Mapping[str, str]
    enabled: bool
    max_concurrency: int

    @property
    def usable(self) -> bool:
        return bool(self.base_url) and bool(self.secrets) and ADAPTERS[self.adapter].usable(self.secrets)

    @property
    def id(self) -> str:
        return lasting_id("acc", self.config, self.adapter, _BEGINNING)


@dataclass(frozen=True, slots=True)
class Known:
    """An account that can be asked about tasks of one config: its id and URL."""

    id: str
    base_url: str


# ---------------------------------------------------------------- accounts


def _pair(key: str) -> dict[str, str]:
    """`access:secret` as the two keys that it is; anything else is one API key."""
    found = _PAIR.match(key)
    return {"access_key": found[1], "secret_key": found[2]} if found else {"api_key": key}


_SECRETS: Mapping[str, Callable[[str], dict[str, str]]] = {
    "midjourney": lambda key: {"api_secret": key},
    "kling": _pair,
    "jimeng": _pair,
    "bfl": lambda key: {"api_key": key},
    "fal": lambda key: {"key": key},
}
_ADAPTERS = {
    "mj_config": "midjourney",
    "kling_config": "kling",
    "jimeng_config": "jimeng",
    "flux_config": "fal",
}
# Whose key opens what no adapter of ours speaks, or is another table's.
_ELSEWHERE = {
    "dreamwork_config": "images were made through Ark, whose key Volcengine's API does not take;"
    " set JIMENG_ACCESS_KEY and JIMENG_SECRET_KEY",
    "kling_lip_sync_config": "lip sync is not in the catalogue",
}
CONFIGS = (*_ADAPTERS, *_ELSEWHERE)


def accounts(session: Session, source: Source) -> list[LegacyAccount]:
    """Every provider that the legacy program had settings for."""
    found = []
    for config, usual in _ADAPTERS.items():
        for row in source.all(session, config, 1):
            key, base_url = text(row.get("api_key")), _root(row)
            adapter = "bfl" if usual == "fal" and "bfl" in base_url else usual
            found.append(
                LegacyAccount(
                    config=config,
                    adapter=adapter,
                    base_url=base_url,
                    secrets=_SECRETS[adapter](key) if key else {},
                    enabled=bool(row.get("enabled")),
                    max_concurrency=max(
                        1, integer(row.get("max_concurrent_tasks")) or ADAPTERS[adapter].max_concurrency
                    ),
                )
            )
    return found


def _root(row: Row) -> str:
    """The base URL, with what the program found out to stand before the API's own path."""
    base_url = (text(row.get("base_url")) or "").rstrip("/")
    before, version, _ = (text(row.get("detected_api_path")) or "").partition("/v1/")
    return f"{base_url}{before}" if base_url and version and before.startswith("/") else base_url


def known_accounts(session: Session, source: Source) -> dict[str, Known]:
    """By config: the account that knows its tasks, whether it is written already or not."""
    rows = session.scalars(select(ProviderAccount)).all()
    known = {}
    for account in accounts(session, source):
        twin = _twin(rows, account)
        if twin is not None:
            known[account.config] = Known(twin.id, twin.base_url)
        elif account.usable:
            known[account.config] = Known(account.id, account.base_url)
    return known


def _twin(rows: Any, account: LegacyAccount) -> ProviderAccount | None:
    """The account of ours with the same way in: imported before, or named in the settings."""
    for row in rows:
        if row.id == account.id:
            return row  # type: ignore[no-any-return]
    for row in rows:
        if row.adapter == account.adapter and row.base_url.rstrip("/") == account.base_url and row.enabled:
            try:
                if unseal(row.credentials) == dict(account.secrets):
                    return row  # type: ignore[no-any-return]
            except CannotDecrypt:
                continue
    return None


def import_accounts(session: Session, source: Source, totals: Mapping[str, Totals], *, write: bool) -> None:
    """Write the accounts that are not there yet. One that an operator has changed since stays as it is."""
    rows = session.scalars(select(ProviderAccount)).all()
    for account in accounts(session, source):
        its = totals[account.config]
        its.rows += 1
        twin = _twin(rows, account)
        if twin is not None:
            its.known += 1
            its.notes[f"is account {twin.name}"] += 1
        elif not account.usable:
            its.skipped[_why_not(account)] += 1
        else:
            its.new += 1
            its.notes[f"account {_name(account)}, {'enabled' if account.enabled else 'disabled'}"] += 1
            if write:
                _insert(session, account)
    for config, reason in _ELSEWHERE.items():
        for _ in source.all(session, config, 1):
            totals[config].rows += 1
            totals[config].skipped[reason] += 1


def _why_not(account: LegacyAccount) -> str:
    if not account.base_url:
        return "no base URL"
    if account.adapter == "jimeng" and account.secrets:
        return "the key is not Volcengine's pair; set JIMENG_ACCESS_KEY and JIMENG_SECRET_KEY"
    return "no key"


def _name(account: LegacyAccount) -> str:
    return f"legacy:{account.adapter}"


def _insert(session: Session, account: LegacyAccount) -> None:
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    now = clock.now()
    session.execute(
        dialect.insert(ProviderAccount)
        .values(
            id=account.id, provider=ADAPTERS[account.adapter].provider, adapter=account.adapter,
            name=_name(account), base_url=account.base_url, credentials=seal(dict(account.secrets)),
            enabled=account.enabled, weight=1, max_concurrency=account.max_concurrency, failures=0,
            open_until=0.0, created_at=now, updated_at=now,
        )
        .on_conflict_do_nothing()
    )  # fmt: skip


# ---------------------------------------------------------------- prices


def import_prices(session: Session, source: Source, its: Totals, *, write: bool) -> None:
    """Set the prices that differ from ours, where the operator has set none."""
    shipped = {row.id: row for row in session.scalars(select(CatalogModel))}
    for model, price in _prices(session, source):
        if model not in MODELS:
            its.skipped["for models that the catalogue does not have"] += 1
        elif price == MODELS[model].price:
            its.skipped["the same as ours"] += 1
        elif model not in shipped:
            its.skipped["the catalogue has no such row; run the upgrade"] += 1
        elif shipped[model].price is not None:
            is_known = shipped[model].price == price
            its.known += is_known
            its.skipped["an operator has set another one"] += not is_known
        else:
            pricing.check(price)
            its.new += 1
            its.notes[f"price of {model}"] += 1
            if write:
                session.execute(
                    update(CatalogModel)
                    .where(CatalogModel.id == model)
                    .values(price=price, updated_at=clock.now())
                )
        its.rows += 1


def _prices(session: Session, source: Source) -> Iterator[tuple[str, dict[str, Any]]]:
    for row in source.all(session, "mj_config", 1):
        yield from _table_price("midjourney/imagine", {
            mode: obj(its).get("credits") for mode, its in obj(parsed(row.get("modes"))).items()
        })  # fmt: skip
    for row in source.all(session, "kling_config", 1):
        for model in ("kling/text-to-video", "kling/image-to-video"):
            yield from _kling_prices(model, row)
    for row in source.all(session, "jimeng_config", 1):
        lengths = {"5": row.get("credits_per_5s"), "10": row.get("credits_per_10s")}
        for model in ("jimeng/text-to-video", "jimeng/image-to-video"):
            yield from _table_price(model, lengths)
    for row in source.all(session, "dreamwork_config", 1):
        yield from _flat_price("jimeng/text-to-image", row.get("credits_per_generation"))
    for row in source.all(session, "flux_config", 1):
        for path, credits in obj(parsed(row.get("model_credits"))).items():
            if not path.endswith(("/multi", "/image-to-image")):
                yield from _flat_price(flux_model({"model": path}), credits)


def _credits(value: Any) -> int | None:
    """Whole credits, rounded down: nobody pays more than before."""
    found = exact(value)
    return int(found) if found is not None and 0 <= found < 10**9 else None


def _flat_price(model: str, value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    credits = _credits(value)
    if credits is not None:
        ours = MODELS[model].price if model in MODELS else {}
        yield model, {**{name: rest for name, rest in ours.items() if name == "times"}, "credits": credits}


def _table_price(model: str, cells: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Our own table with their cells: what they did not offer keeps our price."""
    given = {name: credits for name, value in cells.items() if (credits := _credits(value)) is not None}
    if given:
        ours = MODELS[model].price if model in MODELS else {}
        yield model, {**ours, "table": {**ours.get("table", {}), **given}}


def _kling_prices(model: str, row: Row) -> Iterator[tuple[str, dict[str, Any]]]:
    common = {
        f"{mode}/{length}": row.get(f"credits_per_{mode}_{length}s")
        for mode in ("std", "pro")
        for length in ("5", "10")
    }
    per_model = {
        name: {f"{mode}/{length}": credits for mode, lengths in obj(modes).items()
               for length, credits in obj(lengths).items()}
        for name, modes in obj(parsed(row.get("model_credits_config"))).items()
    }  # fmt: skip
    for _, price in _table_price(model, common):
        if not _differ(per_model, price["table"]) or "by" not in price:
            yield model, price
        else:
            yield model, _priced_by_version(model, price, per_model)


def _differ(per_model: Mapping[str, Mapping[str, Any]], table: Mapping[str, int]) -> bool:
    return any(
        _credits(credits) != table.get(cell)
        for cells in per_model.values()
        for cell, credits in cells.items()
    )


def _priced_by_version(
    model: str, price: Mapping[str, Any], per_model: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """A table in which each version of the provider's model has its own prices."""
    versions = obj(obj(MODELS[model].input_schema.get("properties")).get("model_name")).get("enum") or []
    table = {f"{version}/{cell}": credits for version in versions for cell, credits in price["table"].items()}
    for version in versions:
        for cell, value in per_model.get(version, {}).items():
            if (credits := _credits(value)) is not None:
                table[f"{version}/{cell}"] = credits
    return {"by": ["model_name", *price["by"]], "table": table}


# ---------------------------------------------------------------- the bucket


def buckets(session: Session, source: Source) -> list[Row]:
    """The storage settings; their domains tell which URLs are the operator's."""
    return source.all(session, "cloud_storage_config", _FEW)


def storage_lines(session: Session, source: Source, *, secrets: bool) -> list[str]:
    """The lines of `.env` that mean the same bucket; without `secrets` those two name where they are kept."""
    for row in buckets(session, source)[:1]:
        domain = text(row.get("domain")) or text(row.get("cdn_url"))
        if domain and "//" not in domain:
            domain = f"https://{domain}"
        hidden = {name: f"<cloud_storage_config.{name}>" for name in ("secret_id", "secret_key")}
        shown = {name: text(row.get(name)) or "" for name in hidden} if secrets else hidden
        lines = [
            "STORAGE=cos",
            f"COS_REGION={text(row.get('region')) or ''}",
            f"COS_BUCKET={text(row.get('bucket')) or ''}",
            f"COS_SECRET_ID={shown['secret_id']}",
            f"COS_SECRET_KEY={shown['secret_key']}",
        ]
        return lines + ([f"COS_PUBLIC_URL={domain.rstrip('/')}"] if domain else [])
    return []
