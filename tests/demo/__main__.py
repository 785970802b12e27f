"""Start everything, run the demo jobs, show their URLs, and serve until Ctrl-C.

PORT (8000) is where the API listens; DEMO=0 leaves the demo jobs out. A second run goes on with the data of the first.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from rich.console import Console

from tests.demo.jobs import run_jobs
from tests.demo.platform import Demo, Unable
from tests.infrastructure.children import StartError
from tests.infrastructure.client import Refused


def main() -> int:
    """Returns the exit code."""
    for each in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # the first is ignored otherwise where a script starts us with `&`
        signal.signal(each, _interrupt)
    console = Console(highlight=False, soft_wrap=True)
    try:
        with Demo(os.environ.get("PORT") or "8000", say=console.print) as demo:
            if os.environ.get("DEMO", "1") != "0":
                run_jobs(demo.user, console)
            _invite(demo, console)
            demo.watch()
    except KeyboardInterrupt:
        console.print("stopped")
        return 0
    except (Unable, StartError, Refused, TimeoutError) as error:
        print(f"make run: {error}", file=sys.stderr)
        return 1


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _invite(demo: Demo, console: Console) -> None:
    url, token = demo.user.url, demo.user.token
    console.print(f"""
Serving at {url} (every call: {url}/docs) until Ctrl-C. Logs: {demo.logs}

  curl -s {url}/v1/jobs -H 'Authorization: Bearer {token}' \\
       -H 'Content-Type: application/json' -d '{{"model": "flux/pro-1.1", "input": {{"prompt": "a red fox"}}}}'
""")


if __name__ == "__main__":
    raise SystemExit(main())
