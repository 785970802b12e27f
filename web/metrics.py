"""Figures for Prometheus: this process group's requests, and what the database says about the work.

With PROMETHEUS_MULTIPROC_DIR set (gunicorn's configuration does) the counters of all workers are added up.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Generic, TypeVar, get_args

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
    multiprocess,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from common import tally
from common.db import compat, reading
from common.db.schema import Name as SchemaName
from common.db.schema import SchemaState
from common.services import doctor, lifecycle
from common.services.doctor import Figures, Totals

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_requests = Counter("wxiai_http_requests_total", "HTTP requests answered.", ["method", "route", "status"])
_durations = Histogram(
    "wxiai_http_request_duration_seconds", "Time to answer.", ["method", "route"], buckets=_BUCKETS
)
log = logging.getLogger(__name__)
compat.when_left_out(tally.count_left_out)

T = TypeVar("T")


@cache
def _counter(method: str, route: str, status: int) -> Counter:
    return _requests.labels(method, route, str(status))


@cache
def _histogram(method: str, route: str) -> Histogram:
    return _durations.labels(method, route)


def answered(method: str, route: str, status: int, took_s: float) -> None:
    """Count one request. `route` is a rule of ours, never what the client sent."""
    _counter(method, route, status).inc()
    _histogram(method, route).observe(took_s)


def exposition() -> bytes:
    """Everything, in Prometheus' text format."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    work = CollectorRegistry()
    work.register(_Work())
    return generate_latest(registry) + generate_latest(work)


class _Work(Collector):
    """What the whole platform counted, and what the database says; without one only that it is gone."""

    def collect(self) -> Iterator[Metric]:
        yield _about_what_was_left_out()
        schema = _schema.get()
        yield _single("wxiai_database_up", "Whether the database answers.", schema is not None)
        if schema is None:
            return
        yield from _about_schema(schema)
        if schema.usable and (seen := _figures.get()) is not None:
            yield from _about_work(seen)
        if schema.usable and (total := _totals.get()) is not None:
            yield from _about_the_past(total)


def _about_what_was_left_out() -> Metric:
    family = CounterMetricFamily(
        "schema_compat_dropped",
        "Rows written without a column that the database lacks, by all processes.",
        labels=["table", "column"],
    )
    for place, rows in tally.left_out().items():
        family.add_metric(place, rows)
    return family


def _about_schema(schema: SchemaState) -> Iterator[Metric]:
    states = {name: float(name == schema.state) for name in get_args(SchemaName)}
    yield _gauge("wxiai_schema_state", "1 for the state that the schema is in.", "state", states)
    missing = sum(len(columns) for columns in schema.missing.values())
    yield _single("wxiai_schema_missing_columns", "Columns that the database lacks.", missing)


def _about_work(seen: Figures) -> Iterator[Metric]:
    yield _gauge("wxiai_steps", "Live work by step.", "step", seen.jobs_by_step)
    yield _gauge("wxiai_overdue_seconds", "Age of the oldest due work by step.", "step", seen.overdue_s)
    yield _single("wxiai_webhooks_overdue_seconds", "Age of the oldest due webhook.", seen.webhooks_overdue_s)
    yield _single("wxiai_objects_to_remove", "Objects that the storage is still to remove.", seen.removals)
    yield _gauge("wxiai_account_slots_used", "Slots in use by account.", "account", seen.slots_used)
    yield _gauge("wxiai_account_slots_limit", "Slots by account.", "account", seen.slots_limit)
    yield _paused(seen)
    yield _gauge("wxiai_jobs_unserved", "Waiting jobs that no enabled account takes.", "model", seen.unserved)
    yield _single("wxiai_jobs_past_deadline", "Jobs that should have been ended by now.", seen.past_deadline)
    yield _single("wxiai_results_stubborn", "Results that could not be stored for minutes.", seen.stubborn)


def _about_the_past(total: Totals) -> Iterator[Metric]:
    for kind, text in _EVENTS.items():
        yield CounterMetricFamily(f"wxiai_jobs_{kind}", text, value=total.events[kind])
    yield _single("wxiai_jobs_watched", "Ended jobs whose result is still waited for.", total.watched)
    yield _single("wxiai_slots_leaked", "Steps that hold a slot for nothing.", total.leaked)
    yield _single("wxiai_jobs_stuck", "Live jobs that nothing moves (counted up to 20).", len(total.stuck))
    yield _single(
        "wxiai_credits_unsettled",
        "Credits held, less what the live jobs cost; 0 if all is well.",
        total.unsettled,
    )
    if total.proof is not None:
        yield _single(
            "wxiai_ledger_findings", "Contradictions at the last daily proof.", total.proof.findings
        )
        verified_at = total.proof.verified_at.timestamp()
        yield _single("wxiai_ledger_verified_timestamp_seconds", "When that proof was.", verified_at)


_EVENTS = {
    lifecycle.SUBMIT_UNKNOWN: "Submits whose answer was lost.",
    lifecycle.ADOPTED: "Lost submits that were found again.",
    lifecycle.LATE_SUCCESS: "Results that came after their job had ended.",
    lifecycle.REFUNDED: "Charges for canceling that were given back.",
}


def _single(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _paused(seen: Figures) -> Metric:
    """1 with its reason for an account that is out of work, 0 with none for the others: what alerts look for."""
    family = GaugeMetricFamily(
        "provider_account_paused", "Accounts that are out of work.", labels=["account", "trouble"]
    )
    for name in seen.slots_limit:
        trouble = seen.paused.get(name)
        family.add_metric([name, trouble or ""], float(trouble is not None))
    return family


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


class _Cached(Generic[T]):
    """Something asked of the database at most every few seconds, however often somebody scrapes."""

    def __init__(self, ask: Callable[[Session], T], refresh_s: float) -> None:
        self._ask, self._refresh_s = ask, refresh_s
        self._asked_at, self._known = float("-inf"), None

    _known: T | None

    def get(self) -> T | None:
        """The answer, or None where the database gives none."""
        if time.monotonic() - self._asked_at >= self._refresh_s:
            try:
                with reading() as session:
                    self._known = self._ask(session)
            except SQLAlchemyError as error:
                log.warning("no figures: %s", type(error).__name__)
                self._known = None
            self._asked_at = time.monotonic()
        return self._known


_schema: _Cached[SchemaState] = _Cached(doctor.schema, 5.0)
_figures: _Cached[Figures] = _Cached(doctor.figures, 5.0)
_totals: _Cached[Totals] = _Cached(doctor.totals, 60.0)
