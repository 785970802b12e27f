"""Accounts: their health as answers tell it, and the `env` ones as the settings have them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from sqlalchemy import Engine, select, update

from common import clock
from common.db import transaction
from common.models import ProviderAccount
from common.providers.base import Trouble
from common.services import accounts
from common.services.accounts import BREAKER_THRESHOLD
from common.settings import Settings
from tests.infrastructure.children import wait_until

Make = Callable[..., str]
WAIT_S = 10.0


def health(account_id: str) -> tuple[int, str | None, float]:
    """Failures in a row, the last trouble, and for how many seconds from now it is paused."""
    with transaction() as session:
        row = session.get_one(ProviderAccount, account_id)
        return row.failures, row.trouble, max(0.0, row.open_until - clock.epoch())


def trouble(account_id: str, kind: Trouble = Trouble.DOWN, retry_after_s: float | None = None) -> None:
    with transaction() as session:
        accounts.troubled(session, account_id, kind, retry_after_s)


def success(account_id: str) -> None:
    with transaction() as session:
        accounts.succeeded(session, account_id)


def end_pause(account_id: str) -> None:
    with transaction() as session:
        session.execute(
            update(ProviderAccount).where(ProviderAccount.id == account_id).values(open_until=clock.epoch())
        )


def break_down(account_id: str) -> None:
    for _ in range(BREAKER_THRESHOLD):
        trouble(account_id)


# ---------------------------------------------------------------- the breaker


def test_a_few_troubles_are_borne(make_account: Make) -> None:
    account = make_account()
    for _ in range(BREAKER_THRESHOLD - 1):
        trouble(account)
    assert health(account) == (BREAKER_THRESHOLD - 1, "down", 0.0)


def test_troubles_in_a_row_open_the_breaker_and_a_success_closes_it(make_account: Make) -> None:
    account = make_account()
    break_down(account)
    failures, _, pause_s = health(account)
    assert accounts.is_half_open(failures, None)
    assert 0.5 < pause_s <= 1.0
    success(account)
    assert health(account) == (0, None, 0.0)


def test_each_failed_probe_makes_the_pause_longer_up_to_a_bound(make_account: Make) -> None:
    account = make_account()
    break_down(account)
    pauses = []
    for _ in range(8):
        end_pause(account)
        trouble(account)
        pauses.append(round(health(account)[2]))
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]


def test_what_was_under_way_when_it_opened_says_nothing_new(make_account: Make) -> None:
    account = make_account()
    for _ in range(5 * BREAKER_THRESHOLD):
        trouble(account)
    assert health(account)[0] == BREAKER_THRESHOLD
    assert health(account)[2] <= 1.0


def test_a_batch_counts_in_the_order_of_its_answers(make_account: Make) -> None:
    account = make_account()
    with transaction() as session:
        for _ in range(BREAKER_THRESHOLD):
            accounts.troubled(session, account, Trouble.DOWN, None)
        accounts.succeeded(session, account)
        accounts.troubled(session, account, Trouble.DOWN, None)
    assert health(account) == (1, "down", 0.0)


@pytest.mark.parametrize("kind", [Trouble.CREDENTIALS, Trouble.BALANCE])
def test_a_wrong_key_and_an_empty_balance_pause_at_once_and_long(
    make_account: Make, kind: Trouble, caplog: pytest.LogCaptureFixture
) -> None:
    account = make_account()
    for _ in range(3):
        trouble(account, kind)
    alerts = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(alerts) == 1, "an operator is told once for each pause"
    assert alerts[0].startswith(f"account {account}: {accounts.IS_OUT[kind]}")
    failures, said, pause_s = health(account)
    assert (failures, said) == (1, kind)
    assert 290 < pause_s <= 300
    assert accounts.is_half_open(failures, said)
    trouble(account, Trouble.BUSY)  # one that was under way
    assert health(account)[1] == kind


def test_a_rollback_forgets_what_was_reported(make_account: Make) -> None:
    account = make_account()
    with pytest.raises(ZeroDivisionError), transaction() as session:
        accounts.troubled(session, account, Trouble.CREDENTIALS, None)
        raise ZeroDivisionError
    assert health(account) == (0, None, 0.0)


def test_an_account_that_is_gone_is_no_trouble(engine: Engine) -> None:
    trouble("acc_gone")
    success("acc_gone")


# ---------------------------------------------------------------- busy is not broken


def test_a_busy_account_pauses_for_as_long_as_it_says(make_account: Make) -> None:
    account = make_account()
    for _ in range(2 * BREAKER_THRESHOLD):
        trouble(account, Trouble.BUSY)
    failures, said, pause_s = health(account)
    assert (failures, said) == (0, "busy")
    assert 0.5 < pause_s <= 1.0
    trouble(account, Trouble.BUSY, 40.0)
    assert 39 < health(account)[2] <= 40


def test_a_success_does_not_cut_a_pause_short_that_the_provider_asked_for(make_account: Make) -> None:
    account = make_account()
    trouble(account)
    trouble(account, Trouble.BUSY, 40.0)
    success(account)
    failures, _, pause_s = health(account)
    assert failures == 0
    assert pause_s > 39
    with transaction() as session:
        accounts.troubled(session, account, Trouble.BUSY, 50.0)
        accounts.succeeded(session, account)
    assert health(account)[2] > 49


def test_retry_after_is_bounded(make_account: Make) -> None:
    account = make_account()
    trouble(account, Trouble.BUSY, 1e9)
    assert health(account)[2] <= 300


def test_a_broken_accounts_retry_after_does_not_shorten_the_breakers_pause(make_account: Make) -> None:
    account = make_account()
    break_down(account)
    for _ in range(4):
        end_pause(account)
        trouble(account)
    end_pause(account)
    trouble(account, Trouble.DOWN, 1.0)
    assert health(account)[2] > 30


# ---------------------------------------------------------------- who else could


def test_whether_another_account_may_serve(make_account: Make) -> None:
    first, second = make_account(), make_account("fal")
    with transaction() as session:
        assert accounts.other_account_may_serve(session, ("bfl", "fal"), but=[first])
        assert not accounts.other_account_may_serve(session, ("bfl",), but=[first])
        accounts.troubled(session, second, Trouble.BALANCE, None)  # in this very transaction
        assert not accounts.other_account_may_serve(session, ("bfl", "fal"), but=[first])
    with transaction() as session:
        assert not accounts.other_account_may_serve(session, ("bfl", "fal"), but=[first])


# ---------------------------------------------------------------- many at once


def test_reports_from_all_sides_neither_get_lost_nor_wait_for_each_other(make_account: Make) -> None:
    """Batches that name the same accounts in opposite orders: health is written last, in one order."""
    ids = [make_account(), make_account()]
    rounds, errors = 20, []
    together = threading.Barrier(4, timeout=WAIT_S)

    def report(order: list[str]) -> None:
        try:
            for _ in range(rounds):
                together.wait()
                with transaction() as session:
                    for account in order:
                        accounts.troubled(session, account, Trouble.DOWN, None)
        except Exception as error:
            errors.append(error)
            together.abort()

    with transaction() as session:  # far from the breaker, so that every one counts
        session.execute(update(ProviderAccount).values(failures=-1000))
    threads = [threading.Thread(target=report, args=(ids[:: 1 - 2 * (n % 2)],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert errors == []
    assert [health(account)[0] for account in ids] == [-1000 + 4 * rounds] * 2


def test_a_batch_locks_the_account_only_at_its_end(make_account: Make, engine: Engine) -> None:
    """Whoever gives out slots waits for the account's row: it must not wait for a whole batch of answers."""
    if engine.dialect.name == "sqlite":
        return  # one writer at a time: there is nothing to lock early
    account = make_account()
    with transaction() as session:
        accounts.troubled(session, account, Trouble.DOWN, None)
        with engine.begin() as other:
            other.execute(
                select(ProviderAccount.id).where(ProviderAccount.id == account).with_for_update(nowait=True)
            )
    assert health(account)[0] == 1


# ---------------------------------------------------------------- the env accounts


@pytest.fixture
def make_settings(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> Iterator[Callable[..., Settings]]:
    with ExitStack() as stack:

        def make(**values: str) -> Settings:
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            for name, value in values.items():
                patch.setenv(name, value)
            made = Settings()
            patch.undo()
            return made

        yield make


def env(name: str) -> ProviderAccount | None:
    with transaction() as session:
        return session.scalars(
            select(ProviderAccount).where(ProviderAccount.name == f"env:{name}")
        ).one_or_none()


def sync(given: Settings) -> None:
    with transaction() as session:
        accounts.sync_env(session, given)


def test_env_accounts_are_what_the_settings_say(make_settings: Callable[..., Settings]) -> None:
    sync(make_settings(BFL_API_KEY="k1", BFL_MAX_CONCURRENCY="7"))
    first = env("bfl")
    assert first is not None
    assert (first.enabled, first.max_concurrency, env("fal")) == (True, 7, None)
    with transaction() as session:
        assert accounts.load(session, [first.id])[first.id].credentials.secrets == {"api_key": "k1"}

    sync(make_settings(BFL_API_KEY="k1", BFL_MAX_CONCURRENCY="9"))
    same = env("bfl")
    assert same is not None
    assert (same.id, same.max_concurrency, same.updated_at) == (first.id, 9, first.updated_at)


def test_a_new_key_is_a_new_chance(make_settings: Callable[..., Settings]) -> None:
    sync(make_settings(BFL_API_KEY="wrong"))
    account = env("bfl")
    assert account is not None
    trouble(account.id, Trouble.CREDENTIALS)
    sync(make_settings(BFL_API_KEY="wrong"))
    assert health(account.id)[2] > 290  # starting a process again changes nothing
    sync(make_settings(BFL_API_KEY="right"))
    assert health(account.id) == (0, None, 0.0)


def test_an_account_whose_settings_are_gone_gets_nothing_new_but_its_jobs_keep_their_key(
    make_settings: Callable[..., Settings],
) -> None:
    sync(make_settings(BFL_API_KEY="k1"))
    sync(make_settings())
    account = env("bfl")
    assert account is not None
    assert not account.enabled
    with transaction() as session:
        assert accounts.load(session, [account.id])[account.id].credentials.secrets == {"api_key": "k1"}


def test_processes_that_start_together_agree(make_settings: Callable[..., Settings]) -> None:
    given, errors = make_settings(BFL_API_KEY="k1", FAL_KEY="k2"), []
    together = threading.Barrier(6, timeout=WAIT_S)

    def start() -> None:
        try:
            together.wait()
            sync(given)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    wait_until(lambda: not any(thread.is_alive() for thread in threads), WAIT_S, what="all have started")
    assert errors == []
    assert env("bfl") is not None
    assert env("fal") is not None
