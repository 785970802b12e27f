"""`make run`, as a stranger sees it: jobs at every provider, their URLs, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.infrastructure.children import free_port
from tests.infrastructure.client import Client
from tests.infrastructure.processes import ProcessGroup

COMMAND = f"{sys.executable} -m tests.demo"
PROVIDERS = ("midjourney", "kling", "jimeng", "flux")
_ROW = re.compile(r"^(job_\w+) +(\w+) +[\d.]+ +\d+ +(http://\S+)$", re.MULTILINE)


@pytest.mark.timeout(240)
def test_jobs_their_urls_and_an_end_without_remains(tmp_path: Path) -> None:
    with ProcessGroup(tmp_path, environment={"PORT": str(free_port())}) as group:
        first = group.start_command("first", COMMAND)
        group.wait_until(lambda: "Serving at" in first.output or not first.is_running, 120)
        rows = _ROW.findall(first.output)
        assert [provider for _, provider, _ in rows] == list(PROVIDERS), first.output
        for _, _, url in rows:
            with urllib.request.urlopen(url, timeout=5) as reply:
                assert len(reply.read()) > 1000
        os.kill(first.pid, signal.SIGINT)  # Ctrl-C
        assert first.wait(30) == 0
        group.assert_nothing_left()

        second = group.start_command("second", COMMAND, environment={"DEMO": "0"})
        group.wait_until(lambda: "Serving at" in second.output or not second.is_running, 60)
        assert not _ROW.search(second.output)
        kept = _user(second.output).job(rows[0][0])  # with the data of the first
        with urllib.request.urlopen(kept["artifacts"][0]["url"], timeout=5) as reply:
            assert reply.status == 200
        assert second.stop() == 0


def _user(output: str) -> Client:
    """The user that the output invites one to be."""
    found = re.search(r"curl -s (http://\S+)/v1/jobs -H 'Authorization: Bearer (\S+)'", output)
    assert found is not None, output
    return Client(found[1], found[2])


def test_a_busy_port_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with ProcessGroup(tmp_path, environment={"PORT": str(port)}) as group:
            refused = group.start_command("run", COMMAND)
            assert refused.wait(30) == 1
    assert refused.output.strip().splitlines() == [
        f"make run: port {port} cannot be used (Address already in use); try PORT={port + 1} make run"
    ]
