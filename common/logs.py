"""Logs: one JSON object a line on standard error, without secrets."""

from __future__ import annotations

import logging
import os
import sys

from pythonjsonlogger.json import JsonFormatter

# The COS SDK prints its signing key at DEBUG; the others would print every request and every tick.
_QUIET = (
    "qcloud_cos", "urllib3", "aiohttp.access", "celery.worker.strategy", "celery.app.trace", "celery.beat",
)  # fmt: skip


def configure(process: str) -> None:
    """Send every log line of this process to standard error as JSON; `LOG_LEVEL` sets how much."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter(
            "{asctime}{levelname}{name}{message}",
            style="{",
            rename_fields={"asctime": "at", "levelname": "level", "name": "logger"},
            static_fields={"process": process, "pid": os.getpid()},
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(os.environ.get("LOG_LEVEL", "INFO").upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
