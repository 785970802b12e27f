"""An environment that holds nothing of the machine's: no proxies, no wxiai settings, no `.env`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from common.settings import Settings

ROOT = Path(__file__).parents[2]

_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy", "ftp_proxy", "no_proxy"})
_BESIDE_SETTINGS = frozenset(
    {
        "PORT",
        "WEB_CONCURRENCY",
        "LOG_LEVEL",
        "FORWARDED_ALLOW_IPS",
        "PROMETHEUS_MULTIPROC_DIR",
        "GUNICORN_CMD_ARGS",
    }
)
_LOCAL = "127.0.0.1,localhost"


def setting_names() -> frozenset[str]:
    """The environment variables that the platform's processes obey."""
    return frozenset(name.upper() for name in Settings.model_fields) | _BESIDE_SETTINGS


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without proxies and settings, with this Python's programs first, plus `extra`."""
    foreign = setting_names()
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.upper() not in foreign and name.lower() not in _PROXIES and not name.startswith("CELERY_")
    }
    kept["NO_PROXY"] = kept["no_proxy"] = _LOCAL
    kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    return kept | dict(extra or {})


def isolate() -> None:
    """Make that this process's own environment, and let `Settings` read no `.env`."""
    clean = clean_environment()
    os.environ.clear()
    os.environ.update(clean)
    Settings.model_config["env_file"] = None
