"""The official SDK, the current major and the one before, on a line that loses the answers to what is ordered."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.infrastructure.children import wait_until
from tests.infrastructure.environment import clean_environment
from tests.infrastructure.front import CHUNK, Front
from tests.simulators.frame import Stage
from tests.simulators.receiver import Receiver
from tests.stories import openai_client
from tests.stories.conftest import Installation
from tests.stories.test_a_job_at_each_provider import entries

ORDERS = [b"POST /v1/images/generations HTTP/1.1", b"POST /v1/videos HTTP/1.1"]
FOLDERS = {2: str(Path(sys.prefix) / "openai-2"), 3: ""}


class CutLine(Front):
    """Passes everything on. The next reply to each of the requests `cuts` is lost, and its connection cut."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.url = f"http://127.0.0.1:{self.port}"
        self.cuts: list[bytes] = []

    def serve(self, client: socket.socket) -> None:
        """One request after the other; a request's end is not looked for, the answer's beginning is enough."""
        with self.connect() as server:
            last = bytearray()  # the first line of the last request
            answering = threading.Thread(target=self._answer, args=(server, client, last), daemon=True)
            answering.start()
            while data := client.recv(CHUNK):
                if data.startswith((b"GET ", b"POST ", b"DELETE ")):
                    last[:] = data.partition(b"\r\n")[0]
                server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)
            answering.join()

    def _answer(self, server: socket.socket, client: socket.socket, last: bytearray) -> None:
        with suppress(OSError):
            while reply := server.recv(CHUNK):
                if last in self.cuts:
                    self.cuts.remove(bytes(last))
                    break
                client.sendall(reply)
            client.shutdown(socket.SHUT_RDWR)


class Program:
    """A user's program with the SDK of that major."""

    def __init__(self, major: int, address: str, token: str) -> None:
        self.major, self.address, self.token = major, address, token

    def run(self, **calls: Any) -> Any:
        """What each of the calls returned."""
        done = subprocess.run(
            [sys.executable, openai_client.__file__, self.address, self.token],
            input=json.dumps(calls),
            env=clean_environment({"PYTHONPATH": FOLDERS[self.major]}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        returned = json.loads(done.stdout)
        assert returned["sdk"].startswith(f"{self.major}.")
        return returned


@pytest.mark.parametrize("major", sorted(FOLDERS))
def test_one_call_is_one_job_and_one_charge(installation: Installation, major: int) -> None:
    user, receiver = installation.user(credits=1000), Receiver()
    pictures, film = (f"{what} for {user.token[-8:]}" for what in ("pictures", "film"))
    with Stage([receiver]), CutLine(installation.platform.port) as line:
        hook = {"url": f"{receiver.url}/hook", "name": "films", "event_types": ["video.completed"]}
        secret = user.post("/v1/webhook_endpoints", hook)["signing_secret"]
        program = Program(major, line.url, user.token)
        line.cuts = [*ORDERS]
        made = program.run(pictures={"prompt": pictures}, film={"prompt": film})
        assert line.cuts == []

        jobs = {job["id"]: job for job in user.get("/v1/jobs")["data"]}
        assert len(jobs) == 3
        video = jobs.pop(made["film"]["id"])
        sha256 = video["artifacts"][0]["sha256"]
        assert made["film"] == {
            "id": video["id"], "status": "completed", "sha256": sha256, "listed": [video["id"]],
        }  # fmt: skip
        assert sorted(made["pictures"]["urls"]) == sorted(job["artifacts"][0]["url"] for job in jobs.values())
        for job in (video, *jobs.values()):
            price = job["cost"]["charged"]
            assert entries(user, job["id"]) == [("hold", -price, price), ("capture", 0, -price)]
        assert (installation.world.submits(pictures), installation.world.submits(film)) == (2, 1)

        (call,) = wait_until(lambda: list(receiver.calls), 10, what="the film is told of")
        told = {"payload": call.body.decode(), "headers": dict(call.headers), "secret": secret}
        done = program.run(webhook=told, deletion={"video_id": video["id"]})
        assert done["webhook"] == {"type": "video.completed", "id": video["id"], "forged": False}
        assert done["deletion"] == {"deleted": True, "found": False}
