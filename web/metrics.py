"""Figures for Prometheus: this process group's requests, and what the database says about the work.

With PROMETHEUS_MULTIPROC_DIR set (gunicorn's configuration does) the counters of all workers are added up.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from functools import cache

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
    multiprocess,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from common.db import reading
from common.services import doctor
from common.services.doctor import Figures

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_REFRESH_S = 5.0
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_requests = Counter("wxiai_http_requests_total", "HTTP requests answered.", ["method", "route", "status"])
_durations = Histogram(
    "wxiai_http_request_duration_seconds", "Time to answer.", ["method", "route"], buckets=_BUCKETS
)
log = logging.getLogger(__name__)


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
    """What the database says; without a database only that it is gone."""

    def collect(self) -> Iterator[Metric]:
        seen = _figures()
        yield GaugeMetricFamily(
            "wxiai_database_up", "Whether the database answers.", value=float(seen is not None)
        )
        if seen is not None:
            yield from _families(seen)


def _families(seen: Figures) -> Iterator[Metric]:
    yield _gauge("wxiai_steps", "Live work by step.", "step", seen.jobs_by_step)
    yield _gauge("wxiai_overdue_seconds", "Age of the oldest due work by step.", "step", seen.overdue_s)
    yield _gauge("wxiai_account_slots_used", "Slots in use by account.", "account", seen.slots_used)
    yield _gauge("wxiai_account_slots_limit", "Slots by account.", "account", seen.slots_limit)
    open_breakers = {name: float(name in seen.breakers_open) for name in seen.slots_limit}
    yield _gauge("wxiai_account_paused", "Accounts paused after trouble.", "account", open_breakers)


def _gauge(name: str, text: str, label: str, values: dict[str, int] | dict[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


_seen: tuple[float, Figures | None] = (float("-inf"), None)


def _figures() -> Figures | None:
    """The doctor's figures, asked for at most every few seconds however often somebody scrapes."""
    global _seen  # noqa: PLW0603 - a cache of one value per process
    read_at, known = _seen
    if time.monotonic() - read_at < _REFRESH_S:
        return known
    try:
        with reading() as session:
            known = doctor.figures(session)
    except SQLAlchemyError as error:
        log.warning("no figures: %s", type(error).__name__)
        known = None
    _seen = (time.monotonic(), known)
    return known
