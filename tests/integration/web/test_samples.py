"""The samples of the OpenAPI document are programs: each is run against the application on a real port, and succeeds.

No worker is there: what one would do to the jobs, the test does.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from flask import Flask
from sqlalchemy import update
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from common.db import transaction
from common.ids import new_id
from common.models import Artifact, Job, WebhookDelivery
from common.storage import storage
from common.words import Delivery, Role
from tests.infrastructure.databases import Released
from tests.infrastructure.environment import clean_environment
from tests.infrastructure.inside import configured
from tests.infrastructure.valkey import Valkey
from tests.integration.web.api import Api, document
from tests.integration.web.conftest import new_user
from tests.integration.web.jobs import attempt, succeed
from web import openapi, samples
from web.api import openai_images, webhooks
from web.app import create_app
from web.endpoints import declaration
from web.parsing import fit
from web.schemas import EXAMPLE_ULID

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
FILM = b"a film"
FLUX = {"model": "flux/pro-1.1", "input": {"prompt": "a fox"}}
# One process runs all programs of a language; what fails is written into the file `failed`. What Python says is of a
# type must be of it.
IN_BASH = """
for file in *.sh; do bash "$file" >said 2>&1 || { echo "$file"; cat said; } >>failed; done
"""
IN_NODE = """
import { appendFileSync, readdirSync } from "node:fs";
import { resolve } from "node:path";
for (const file of readdirSync(".").filter((name) => name.endsWith(".mjs")).sort()) {
  try { await import(resolve(file)); } catch (error) { appendFileSync("failed", `${file} ${error}\\n`); }
}
"""
IN_PYTHON = """
import traceback
from pathlib import Path
from pydantic import TypeAdapter
for file in sorted(Path().glob("*.py")):
    names = {}
    try:
        exec(compile(file.read_text(), file, "exec"), names)
        typed = names.get("__annotations__") or names.get("__annotate__", lambda _: {})(1)
        for name, kind in typed.items():
            TypeAdapter(kind).validate_python(names[name], strict=True)
    except Exception:
        with open("failed", "a") as failed:
            failed.write(f"{file} {traceback.format_exc()}")
"""
RUNNERS = {
    "curl": (".sh", ["bash", "-c", IN_BASH]),
    "openai": (".py", [sys.executable, "-c", IN_PYTHON]),
    "requests": (".py", [sys.executable, "-c", IN_PYTHON]),
    "JavaScript": (".mjs", ["node", "--input-type=module", "-e", IN_NODE]),
}


@dataclass(frozen=True)
class Sample:
    """One program of the document, and the call that it is of."""

    method: str
    path: str
    operation: dict[str, Any]
    source: str


def samples_in(label: str) -> list[Sample]:
    """What is deleted by one is not there for the next: those come last."""
    found = [
        Sample(method.upper(), path, operation, sample["source"])
        for path, operations in document()["paths"].items()
        for method, operation in operations.items()
        for sample in operation["x-codeSamples"]
        if sample["label"] == label
    ]
    return sorted(found, key=lambda sample: sample.method == "DELETE")


def example_of(sample: Sample) -> Any:
    """The example of the body that the operation declares; None without one."""
    content = sample.operation.get("requestBody", {}).get("content", {})
    reference = content.get("application/json", {}).get("schema", {}).get("$ref")
    return reference and document()["components"]["schemas"][reference.rpartition("/")[2]]["examples"][0]


# ---------------------------------------------------------------- the application, which remembers what it was asked


@dataclass(frozen=True)
class Asked:
    """A request and how it was answered."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    status: int
    answer: bytes


class Site:
    """The application at `url`, and again at `url/-/<number>` for each program, by which requests are told apart."""

    def __init__(self) -> None:
        self.server = make_server("127.0.0.1", 0, self)
        self.url = f"http://127.0.0.1:{self.server.port}"
        self.app: Any = None
        self.asked: dict[int, list[Asked]] = {}

    def __call__(self, environ: Any, start_response: Any) -> Any:
        found = re.fullmatch(r"/-/(\d+)(/.*)", environ["PATH_INFO"])
        number, environ["PATH_INFO"] = (int(found[1]), found[2]) if found else (-1, environ["PATH_INFO"])
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        answered = Response.from_app(self.app, environ, buffered=True)
        headers = {name.removeprefix("HTTP_"): value for name, value in environ.items() if name.isupper()}
        made = Asked(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"], headers, body,
                     answered.status_code, answered.get_data())  # fmt: skip
        self.asked.setdefault(number, []).append(made)
        return answered(environ, start_response)


@pytest.fixture(scope="module")
def site(
    released: Released, valkey_server: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """The application on SQLite: samples say the same on any database."""
    folder, made = tmp_path_factory.mktemp("site"), Site()
    environment = {
        "DATABASE_URL": released.sqlite(folder / "webui.db"),
        "REDIS_URL": valkey_server.url,
        "SECRET_KEY": "a secret for tests",
        "MEDIA_DIR": str(folder / "media"),
        "PUBLIC_URL": made.url,
    }
    with configured(environment):
        made.app = create_app()
        thread = threading.Thread(target=made.server.serve_forever)
        thread.start()
        yield made
        made.server.shutdown()
        thread.join()
        made.server.server_close()


@pytest.fixture(scope="module")
def app(site: Site) -> Flask:
    made: Flask = site.app
    return made


@pytest.fixture
def no_worker_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that are waited for are there; receivers take samples of webhooks."""
    monkeypatch.setattr(openai_images, "until_finished", lambda job_id, _: succeed(job_id))
    monkeypatch.setattr(webhooks, "_answer_to", lambda *_: 200)


# ---------------------------------------------------------------- what the ids in samples stand for


def things(user: Api) -> dict[str, str]:
    """One of everything, of this user's: what the ids and names in samples become."""
    endpoint = user.post("/v1/webhook_endpoints", {"url": "https://example.com/hook", "name": "mine"})
    return {
        f"upl_{EXAMPLE_ULID}": user.ask("POST", "/v1/uploads", PNG, {"Content-Type": "image/png"}).json["id"],
        f"sch_{EXAMPLE_ULID}": user.post("/v1/schedules", {"interval_s": 3600, "job": FLUX})["id"],
        f"tool_{EXAMPLE_ULID}": user.post("/v1/tools", {"name": "fox", **FLUX})["id"],
        f"tok_{EXAMPLE_ULID}": user.post("/v1/tokens", {"name": "laptop"})["id"],
        f"whe_{EXAMPLE_ULID}": endpoint["id"],
        f"evt_{EXAMPLE_ULID}": delivery(user),
        samples.PATH_VALUES["user_id"]: new_user().user_id,
        samples.PATH_VALUES["token"]: attempt(user.post("/v1/jobs", FLUX)["id"]),
        "fox@example.com": f"{new_id('fox')}@example.com",
    }


def jobs_of(user: Api, path: str) -> dict[str, str]:
    """The same of the job that calls at this path are about; for each another, since some end it."""
    if path.endswith("/cancel"):
        waiting = user.post("/mj/submit/imagine", {"prompt": "a fox"})["result"]
        job = waiting if path.startswith("/mj") else user.post("/v1/jobs", FLUX)["id"]
    elif path.startswith("/mj"):
        job = grid(user)
    elif path.startswith(("/v1/jobs/", "/v1/videos/", "/media/")):
        job = film(user)
    else:
        return {}
    return {f"artifacts/2026/11/24/job_{EXAMPLE_ULID}": f"artifacts/{job}", f"job_{EXAMPLE_ULID}": job}


def film(user: Api) -> str:
    """A film that is in the storage."""
    job_id = str(user.post("/v1/videos", {"model": "kling/text-to-video", "prompt": "rain"})["id"])
    key = f"artifacts/{job_id}/1.mp4"
    succeed(job_id)
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(FILM)
        storage().put(key, Path(file.name), "video/mp4")
    with transaction() as session:
        session.execute(update(Artifact).where(Artifact.job_id == job_id).values(kind="video", key=key))
    return job_id


def grid(user: Api) -> str:
    """A task of Midjourney's with buttons."""
    task_id = str(user.post("/mj/submit/imagine", {"prompt": "a fox"})["result"])
    attempt(task_id)
    buttons = [{"id": each, "label": each} for each in ("upsample_2", "custom_zoom")]
    with transaction() as session:
        session.execute(update(Job).where(Job.id == task_id).values(actions=buttons))
    succeed(task_id)
    return task_id


def delivery(user: Api) -> str:
    """A delivery that nobody took."""
    succeed(user.post("/v1/jobs", {**FLUX, "webhook_url": "https://example.com/hook"})["id"])
    with transaction() as session:
        session.execute(update(WebhookDelivery).values(status=Delivery.FAILED))
    return str(user.get("/v1/webhook_deliveries")["data"][0]["id"])


def renamed(text: str, names: dict[str, str]) -> str:
    for example, real in names.items():
        text = text.replace(example, real)
    return text


# ---------------------------------------------------------------- they run


@pytest.mark.parametrize("label", RUNNERS)
def test_every_sample_runs(site: Site, no_worker_needed: None, tmp_path: Path, label: str) -> None:
    suffix, command = RUNNERS[label]
    for program in {command[0], label} & {"bash", "curl", "node"}:
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")
    user = new_user(10**6, Role.ADMIN, url=site.url)
    found, made = samples_in(label), things(user)
    names = {path: made | jobs_of(user, path) for path in {sample.path for sample in found}}
    for number, sample in enumerate(found):
        source = renamed(sample.source, {**names[sample.path], samples.BASE: f"{site.url}/-/{number}"})
        (tmp_path / f"{number:03}{suffix}").write_text(source)
    (tmp_path / "fox.png").write_bytes(PNG)
    site.asked.clear()
    environment = clean_environment({"WXIAI_TOKEN": user.token})
    subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=100, check=True)
    failed = tmp_path / "failed"
    assert not failed.exists(), failed.read_text()
    assert (tmp_path / "fox.mp4").read_bytes() == FILM
    for number, sample in enumerate(found):
        check(user, sample, names[sample.path], site.asked[number])


def check(user: Api, sample: Sample, names: dict[str, str], asked: list[Asked]) -> None:
    """The sample asked once for what it is of, with its token, its key and its example; that was answered well."""
    (request,) = asked
    path = renamed(sample.path.format(**samples.PATH_VALUES), names)
    assert (request.method, request.path) == (sample.method, path)
    assert "$ref" not in sample.operation["responses"][str(request.status)], request
    if "/mj/submit/" in path:  # where also what is refused is answered 200
        assert json.loads(request.answer)["code"] in (1, 21), request
    token = "" if sample.operation.get("security") == [] else f"Bearer {user.token}"
    assert request.headers.get("AUTHORIZATION", "") == token
    parameters = [each["name"] for each in sample.operation["parameters"]]
    assert ("IDEMPOTENCY_KEY" in request.headers) == ("Idempotency-Key" in parameters)
    example = example_of(sample)
    if request.body and request.headers["CONTENT_TYPE"] == "application/json":
        assert json.loads(request.body) == json.loads(renamed(json.dumps(example), names))
    else:
        assert example is None or "multipart/form-data" in sample.operation["requestBody"]["content"]


# ---------------------------------------------------------------- they are all there


def test_every_body_has_an_example_that_fits(app: Flask) -> None:
    declared = filter(None, map(declaration, app.view_functions.values()))
    bodies = {each.body for each in declared if each.body is not None}
    assert len(bodies) > 20
    for body in bodies:
        (example,) = body.model_json_schema()["examples"]
        fit(body, example)


def sdk_calls() -> set[tuple[str, str]]:
    """Method and path, with its ids as `{}`, of every call that the SDK has."""
    call = re.compile(r'self\._(get|post|delete|get_api_list)\(\s*(?:path_template\(\s*)?"([^"]+)"')
    files = (Path(openai.__file__).parent / "resources").rglob("*.py")
    found = [match for file in files for match in call.findall(file.read_text())]
    calls = {(verb.replace("get_api_list", "get"), re.sub(r"{\w+}", "{}", path)) for verb, path in found}
    return calls - {("post", "/uploads")}  # OpenAI's uploads come in parts, ours do not


def test_every_call_has_its_samples() -> None:
    known = sdk_calls()
    assert ("post", "/videos/{}/remix") in known
    for path, operations in document()["paths"].items():
        plain = re.sub(r"{\w+}", "{}", path.removeprefix("/v1").replace("{provider}/{name}", "{model}"))
        for method, operation in operations.items():
            labels = [(sample["lang"], sample["label"]) for sample in operation["x-codeSamples"]]
            sdk = [("Python", "openai")] if (method, plain) in known else []
            assert labels == [
                ("Shell", "curl"),
                *sdk,
                ("Python", "requests"),
                ("JavaScript", "JavaScript"),
            ], path


def test_the_page_shows_them_with_the_operators_address(site: Site) -> None:
    shown = html.unescape(site.app.test_client().get("/docs").text)
    for operations in openapi.document(site.app, site.url)["paths"].values():
        for operation in operations.values():
            for sample in operation["x-codeSamples"]:
                assert site.url in sample["source"]
                assert f">{sample['source']}</pre>" in shown


def test_none_waits_for_ever() -> None:
    limits = {
        "curl": "--max-time ",
        "openai": "timeout=",
        "requests": "timeout=",
        "JavaScript": "AbortSignal.timeout(",
    }
    for label, limit in limits.items():
        assert [sample.source for sample in samples_in(label) if limit not in sample.source] == []


def test_curl_is_quoted_well() -> None:
    """Also where there is no curl."""
    for sample in samples_in("curl"):
        words = shlex.split(sample.source)
        assert words[0] == "curl"
        assert samples.BASE + sample.path.format(**samples.PATH_VALUES) in [
            word.partition("?")[0] for word in words
        ]
        assert (words[words.index("-X") + 1] if "-X" in words else "GET") == sample.method
        sent = json.loads(words[words.index("-d") + 1]) if "-d" in words else None
        assert sent == example_of(sample)
