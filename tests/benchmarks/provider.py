"""A provider of AI media that costs nothing, in a process of its own: `python -m tests.benchmarks.provider FILE`.

It speaks as much of four protocols as the benchmarks need (fact sheets flux.md, kling.md, jimeng.md,
midjourney_proxy.md), checks no signature and remembers when it was asked for what. FILE becomes its address.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from collections import defaultdict
from pathlib import Path
from urllib.parse import parse_qs

from tests.benchmarks.http_server import Answer, File, Request, json_answer, not_found, serve


class Provider:
    """Generations whose id begins with `endless` never finish; the others are finished at once.

    A picture is `image.jpg` in `folder`; a film is the file there that its prompt names.

    `GET /bench/submitted` tells when each prompt came, `GET /bench/asked` when each generation was asked for.
    """

    def __init__(self, folder: Path, *, endless: bool) -> None:
        self.address = ""
        self._folder = folder
        self._name = "endless" if endless else "instant"
        self._numbers = itertools.count(1)
        self._submitted: dict[str, float] = {}
        self._asked: defaultdict[str, list[float]] = defaultdict(list)
        self._films: dict[str, str] = {}

    def handle(self, request: Request) -> Answer:
        """Answer one request."""
        path, _, query = request.target.partition("?")
        match request.method, path:
            case "POST", "/v1/flux-pro-1.1":
                return self._bfl_submit(request)
            case "GET", "/v1/get_result":
                return self._bfl_look(parse_qs(query)["id"][0])
            case "POST", "/v1/videos/text2video":
                return self._kling_submit(request)
            case "GET", "/tasks":
                return self._kling_batch(parse_qs(query)["task_ids"][0].split(","))
            case "POST", "/mj/task/list-by-condition":
                return self._midjourney_batch(request.json()["ids"])
            case "POST", "/":
                return self._jimeng_look(request.json()["task_id"])
            case "GET", "/bench/submitted":
                return json_answer(self._submitted)
            case "GET", "/bench/asked":
                return json_answer(self._asked)
        if path.startswith("/v1/videos/text2video/"):
            return self._kling_look(path.rpartition("/")[2])
        if path.startswith("/files/"):
            return self._file(path.removeprefix("/files/"))
        return not_found()

    def _accept(self, request: Request) -> str:
        self._submitted[request.json()["prompt"]] = time.time()
        return f"{self._name}-{next(self._numbers)}"

    def _look(self, known: str) -> bool:
        """Whether it is finished. Only an endless one is asked for again, so only those are remembered."""
        if not known.startswith("endless"):
            return True
        self._asked[known].append(time.time())
        return False

    def _file(self, name: str) -> Answer:
        path = self._folder / name
        kind = "video/mp4" if path.suffix == ".mp4" else "image/jpeg"
        return File(path, kind) if path.parent == self._folder and path.exists() else not_found()

    # ------------------------------------------------------------ BFL

    def _bfl_submit(self, request: Request) -> Answer:
        known = self._accept(request)
        return json_answer({"id": known, "polling_url": f"{self.address}/v1/get_result?id={known}"})

    def _bfl_look(self, known: str) -> Answer:
        if not self._look(known):
            return json_answer({"id": known, "status": "Pending", "result": None})
        sample = f"{self.address}/files/image.jpg"
        return json_answer({"id": known, "status": "Ready", "result": {"sample": sample}})

    # ------------------------------------------------------------ Kling

    def _kling_submit(self, request: Request) -> Answer:
        known = self._accept(request)
        self._films[known] = request.json()["prompt"]
        return json_answer({"code": 0, "data": {"task_id": known, "task_status": "submitted"}})

    def _kling_look(self, known: str) -> Answer:
        if not self._look(known):
            return json_answer({"code": 0, "data": {"task_id": known, "task_status": "processing"}})
        video = {"id": "1", "url": f"{self.address}/files/{self._films[known]}", "duration": "8"}
        result = {"task_id": known, "task_status": "succeed", "task_result": {"videos": [video]}}
        return json_answer({"code": 0, "data": result})

    def _kling_batch(self, ids: list[str]) -> Answer:
        for known in ids:
            self._look(known)
        return json_answer({"code": 0, "data": [{"id": known, "status": "processing"} for known in ids]})

    # ------------------------------------------------------------ Midjourney and Jimeng

    def _midjourney_batch(self, ids: list[str]) -> Answer:
        """Its progress grows with every look, as it does in life: rows have to be written."""
        for known in ids:
            self._look(known)
        return json_answer(
            [
                {"id": known, "status": "IN_PROGRESS", "progress": f"{min(99, 5 * len(self._asked[known]))}%"}
                for known in ids
            ]
        )

    def _jimeng_look(self, known: str) -> Answer:
        self._look(known)
        return json_answer({"code": 10000, "data": {"status": "generating"}, "message": "Success"})


async def main() -> None:
    """Serve until this process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address_file", type=Path)
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--endless", action="store_true")
    parser.add_argument("--latency", type=float, default=0.0)
    given = parser.parse_args()
    provider = Provider(given.folder.resolve(), endless=given.endless)
    server = await serve(provider.handle, latency_s=given.latency)
    provider.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    draft = given.address_file.with_suffix(".draft")
    draft.write_text(provider.address)
    draft.rename(given.address_file)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
