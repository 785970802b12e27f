"""Accounts at the providers: the `env` ones mirror the settings, and each one's health is kept here."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import case, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from common import clock
from common.crypto import CannotDecrypt, seal, unseal
from common.db import before_commit
from common.ids import new_id
from common.models import ProviderAccount
from common.providers.base import Credentials, Trouble
from common.providers.registry import ADAPTERS
from common.settings import Settings

log = logging.getLogger(__name__)

BREAKER_THRESHOLD = 5  # troubles in a row after which an account gets one probe at a time
_BUSY_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_DEAD_PAUSE_S = 300.0  # a wrong key or an empty balance does not mend itself in seconds
_DEAD = (Trouble.CREDENTIALS, Trouble.BALANCE)
# What operators are told of an account that is out of work.
IS_OUT = {
    Trouble.BUSY: "paused, as its provider asked for",
    Trouble.DOWN: "paused after repeated trouble",
    Trouble.INPUT: "paused after repeated trouble",
    Trouble.CREDENTIALS: "paused, its provider refuses the key",
    Trouble.BALANCE: "paused, its money at the provider is used up",
}
_REPORTS = "health"  # in a session's info: what its transaction has to say about accounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One account, ready to be used."""

    id: str
    provider: str
    adapter: str
    credentials: Credentials
    version: float  # changes when the row does


def load(session: Session, account_ids: Iterable[str]) -> dict[str, Account]:
    """The accounts with these ids, enabled or not: a running job keeps the credentials it was submitted with."""
    rows = session.scalars(select(ProviderAccount).where(ProviderAccount.id.in_(list(account_ids))))
    loaded = {}
    for row in rows:
        try:
            secrets = unseal(row.credentials)
        except CannotDecrypt:
            log.error("account %s: SECRET_KEY has changed, its credentials cannot be read", row.name)
            continue
        loaded[row.id] = Account(
            id=row.id,
            provider=row.provider,
            adapter=row.adapter,
            credentials=Credentials(base_url=row.base_url, secrets=secrets),
            version=row.updated_at.timestamp(),
        )
    return loaded


# ---------------------------------------------------------------- health


@dataclass(frozen=True, slots=True)
class _Report:
    """What one answer says about its account: trouble, or none."""

    trouble: Trouble | None
    retry_after_s: float | None = None


def succeeded(session: Session, account_id: str) -> None:
    """The account answered properly: close its breaker."""
    _report(session, account_id, _Report(None))


def troubled(session: Session, account_id: str, trouble: Trouble, retry_after_s: float | None) -> None:
    """The account could not take a job: pause it for as long as it says, after several in a row longer each time.

    A busy provider is not a broken one: that pauses without counting towards the breaker.
    """
    _report(session, account_id, _Report(trouble, retry_after_s))


def is_half_open(failures: int, trouble: str | None) -> bool:
    """Whether an account has yet to prove that it works again: it gets one submit at a time."""
    return failures >= BREAKER_THRESHOLD or needs_operator(trouble)


def needs_operator(trouble: str | None) -> bool:
    """Whether the account's trouble does not mend itself: a wrong key, an empty balance."""
    return trouble in _DEAD


def other_account_may_serve(session: Session, model_adapters: Iterable[str], but: Iterable[str]) -> bool:
    """Whether some other account could still take a job that those in `but` cannot: that neither lacks a right key
    nor money."""
    others = session.scalars(
        select(ProviderAccount).where(
            ProviderAccount.adapter.in_(list(model_adapters)),
            ProviderAccount.enabled,
            ProviderAccount.id.not_in(list(but)),
        )
    )
    return any(_latest_trouble(session, row) not in _DEAD for row in others)


def _report(session: Session, account_id: str, report: _Report) -> None:
    """Keep it until the transaction ends: whoever gives out slots waits for the account's row, so it is locked late,
    briefly, and always after the jobs and credits."""
    reports: dict[str, list[_Report]] = session.info.setdefault(_REPORTS, {})
    if not reports:
        before_commit(session, lambda: _write_health(session))
    reports.setdefault(account_id, []).append(report)


def _latest_trouble(session: Session, row: ProviderAccount) -> str | None:
    reports: list[_Report] = session.info.get(_REPORTS, {}).get(row.id, [])
    return reports[-1].trouble if reports else row.trouble


def _write_health(session: Session) -> None:
    reports: dict[str, list[_Report]] = session.info.pop(_REPORTS)
    for account_id in sorted(reports):  # in one order everywhere, so that no two wait for each other
        if any(report.trouble for report in reports[account_id]):
            _write_troubles(session, account_id, reports[account_id])
        else:
            _close(session, account_id)


def _close(session: Session, account_id: str) -> None:
    """The common case, which locks nothing where all was well before."""
    session.execute(
        update(ProviderAccount)
        .where(ProviderAccount.id == account_id, ProviderAccount.failures > 0)
        .values(
            failures=0,
            trouble=None,
            open_until=case(  # it has asked for that pause, however well it works
                (ProviderAccount.trouble == Trouble.BUSY, ProviderAccount.open_until), else_=0.0
            ),
        )
        .execution_options(synchronize_session=False)
    )


def _write_troubles(session: Session, account_id: str, reports: list[_Report]) -> None:
    row = session.get(ProviderAccount, account_id, with_for_update=True)
    if row is None:
        return
    for report in reports:
        if report.trouble is None:
            row.failures = 0
            row.open_until = row.open_until if row.trouble == Trouble.BUSY else 0.0
            row.trouble = None
        else:
            _count(row, report.trouble, report.retry_after_s)


def _count(row: ProviderAccount, trouble: Trouble, retry_after_s: float | None) -> None:
    now = clock.epoch()
    # What was under way when the breaker opened says nothing new: only a probe's failure makes the pause longer.
    is_open = is_half_open(row.failures, row.trouble) and row.open_until > now
    pause_s = min(retry_after_s or 0.0, _DEAD_PAUSE_S)
    if trouble is Trouble.BUSY:
        pause_s = pause_s or _BUSY_PAUSE_S
    elif not is_open:
        row.failures += 1
        breaker_s = _breaker_pause_s(trouble, row.failures)
        pause_s = max(pause_s, breaker_s)
        if breaker_s:  # once for each pause: what alerts look for
            log.error(
                "account %s: %s; one job at a time tries it again, in %d s",
                row.name,
                IS_OUT[trouble],
                pause_s,
            )
    if trouble is not Trouble.BUSY or row.trouble not in _DEAD:
        row.trouble = trouble
    row.open_until = max(row.open_until, now + pause_s)


def _breaker_pause_s(trouble: Trouble, failures: int) -> float:
    if trouble in _DEAD:
        return _DEAD_PAUSE_S
    over = failures - BREAKER_THRESHOLD
    return float(min(2.0 ** min(over, 16), _LONGEST_PAUSE_S)) if over >= 0 else 0.0


# ---------------------------------------------------------------- the env accounts


@dataclass(frozen=True, slots=True)
class _EnvAccount:
    adapter: str
    base_url: str
    secrets: dict[str, str]
    max_concurrency: int | None


def sync_env(session: Session, settings: Settings) -> None:
    """Make the `env` accounts what the settings say; one whose settings are gone takes no new jobs."""
    wanted = {account.adapter: account for account in _from_settings(settings) if _usable(account)}
    known = {
        row.adapter: row
        for row in session.scalars(select(ProviderAccount).where(ProviderAccount.name.like("env:%")))
    }
    for adapter, row in known.items():
        if adapter not in wanted and row.enabled:
            row.enabled = False
            row.updated_at = clock.now()
    for adapter, account in wanted.items():
        _write_env(session, known.get(adapter), account)


def _from_settings(settings: Settings) -> list[_EnvAccount]:
    def secrets(**fields: str) -> dict[str, str]:
        values = {name: getattr(settings, field).get_secret_value() for name, field in fields.items()}
        return {name: value for name, value in values.items() if value}

    return [
        _EnvAccount("midjourney", settings.midjourney_base_url,
                    secrets(api_secret="midjourney_api_secret"), settings.midjourney_max_concurrency),
        _EnvAccount("kling", settings.kling_base_url,
                    secrets(access_key="kling_access_key", secret_key="kling_secret_key", api_key="kling_api_key",
                            webhook_secret="kling_webhook_secret"),
                    settings.kling_max_concurrency),
        _EnvAccount("jimeng", settings.jimeng_base_url,
                    secrets(access_key="jimeng_access_key", secret_key="jimeng_secret_key"),
                    settings.jimeng_max_concurrency),
        _EnvAccount("bfl", settings.bfl_base_url, secrets(api_key="bfl_api_key"), settings.bfl_max_concurrency),
        _EnvAccount("fal", settings.fal_base_url, secrets(key="fal_key"), settings.fal_max_concurrency),
    ]  # fmt: skip


def _usable(account: _EnvAccount) -> bool:
    """Whether the settings hold what this API needs: a URL where it has no official one, and a whole set of keys."""
    adapter = ADAPTERS[account.adapter]
    if not (account.base_url or adapter.official_url):
        return False
    return adapter.usable(account.secrets)


def _write_env(session: Session, row: ProviderAccount | None, account: _EnvAccount) -> None:
    adapter = ADAPTERS[account.adapter]
    base_url = account.base_url or adapter.official_url or ""
    limit = account.max_concurrency or adapter.max_concurrency
    now = clock.now()
    if row is None:
        dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
        session.execute(
            dialect.insert(ProviderAccount)
            .values(
                id=new_id("acc"), provider=adapter.provider, adapter=adapter.name, name=f"env:{adapter.name}",
                base_url=base_url, credentials=seal(account.secrets), max_concurrency=limit, enabled=True,
                weight=1, failures=0, open_until=0.0, created_at=now, updated_at=now,
            )
            .on_conflict_do_nothing(index_elements=[ProviderAccount.name])  # another process starts just now
        )  # fmt: skip
        return
    if _same(row, base_url, account.secrets):
        row.max_concurrency = limit
        row.enabled = True
        return
    row.base_url, row.credentials = base_url, seal(account.secrets)
    row.max_concurrency, row.enabled, row.updated_at = limit, True, now
    row.failures, row.open_until, row.trouble = 0, 0.0, None


def _same(row: ProviderAccount, base_url: str, secrets: dict[str, str]) -> bool:
    try:
        return row.base_url == base_url and unseal(row.credentials) == secrets
    except CannotDecrypt:
        return False
