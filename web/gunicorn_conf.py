"""gunicorn's settings: `gunicorn -c web/gunicorn_conf.py web.wsgi:app`."""

# ruff: noqa: E402 - gevent patches first: psycopg and SQLAlchemy look at what they find when they are imported.
# The master keeps its own processes, signals and signal queue; each worker patches the rest after its fork.
from gevent import monkey

monkey.patch_all(os=False, subprocess=False, signal=False, queue=False)

import gc
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any


def _number(name: str, default: int, most: int) -> int:
    text = os.environ.get(name, "").strip() or str(default)
    if not text.isdigit() or not 1 <= int(text) <= most:
        raise SystemExit(f"settings: {name}: must be a number from 1 to {most}")
    return int(text)


port = _number("PORT", 8000, 65_535)
bind = f"0.0.0.0:{port}"
workers = _number("WEB_CONCURRENCY", 2, 512)
worker_class = "web.server.Worker"
logger_class = "web.server.Log"
worker_connections = 4000  # most are event streams and held answers, which cost no database connection

timeout = 45  # a SQLite writer may wait 30 s for its turn, and blocks its process while it does
graceful_timeout = 8
keepalive = (
    100  # Heroku's router keeps connections for 90 s; the application must be the later one to hang up
)
backlog = 512
limit_request_line = 8190
control_socket_disable = True
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - heartbeats without a disk
accesslog = None
forwarded_allow_ips = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1,::1")

# prometheus_client looks for this when it is imported; the workers add up their counters there.
_made_here = None
if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    _made_here = tempfile.mkdtemp(prefix="wxiai-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = _made_here

from common.settings import settings

settings()  # raises BadSettings, one line, before anything is started


def on_starting(server: Any) -> None:
    """Refuse a port in use in one line, and a schema that cannot be used; then load what all workers share."""
    if "GUNICORN_FD" not in os.environ:
        _require_port()
    from common.gate import require_schema

    require_schema()
    _load_app()


def _load_app() -> None:
    """Import the application before the workers are forked: once, and into memory that they share.

    The collector would write to every page of it, in each worker: what is there by now is not its business.
    """
    import web.wsgi  # noqa: F401

    gc.freeze()


def _require_port() -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - as `bind` does
        except OSError as error:
            raise SystemExit(f"web: port {port} cannot be used: {error.strerror}") from None


def child_exit(server: Any, worker: Any) -> None:
    """Forget what only a living worker can measure."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(server: Any) -> None:
    """Leave nothing behind."""
    if _made_here:
        shutil.rmtree(_made_here, ignore_errors=True)
