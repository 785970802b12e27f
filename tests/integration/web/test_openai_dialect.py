"""The official openai SDK against this application. No worker is there: jobs end when a test says so."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from flask import Flask
from openai import OpenAI
from sqlalchemy import update

from common import clock
from common.db import transaction
from common.errors import Unavailable
from common.models import Artifact, IdempotencyKey, Job
from common.services import jobs, lifecycle, repeats
from common.settings import settings
from common.storage import storage
from common.words import TERMINAL, ErrorCode, Status
from tests.infrastructure.children import wait_until
from tests.infrastructure.client import Answer
from tests.integration.web.api import Api
from tests.integration.web.jobs import jobs_of, succeed
from tests.simulators.media import png
from web import rates
from web.api import openai_images

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
# The SDK warns that OpenAI's own film service ends; the shape of its requests lives on here.
pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")
FLUX, KLING = "flux/pro-1.1", "kling/text-to-video"


class Lossy(httpx2.BaseTransport):
    """The application; the answers to the first so many requests are lost on their way."""

    def __init__(self, app: Flask, lost: int = 0) -> None:
        self.inner = httpx2.WSGITransport(app=app)
        self.lost = lost
        self.requests: list[httpx2.Request] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        reply = self.inner.handle_request(request)
        if len(self.requests) <= self.lost:
            reply.read()
            raise httpx2.ReadError("the line was cut", request=request)
        return reply


@pytest.fixture
def sdk(app: Flask, user: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., OpenAI]]:
    """The user's SDK; `lost` answers do not arrive, and it does not wait long before it asks again."""
    monkeypatch.setattr("openai._base_client.BaseClient._calculate_retry_timeout", lambda *_, **__: 0.01)
    made: list[OpenAI] = []

    def make(lost: int = 0, **more: Any) -> OpenAI:
        client = httpx2.Client(transport=Lossy(app, lost), follow_redirects=True)
        made.append(OpenAI(api_key=user.token, base_url="http://x/v1", http_client=client, **more))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def ending(user: Api) -> Iterator[Callable[[Callable[[str], Any]], None]]:
    """End the user's next jobs in this way, from a thread, as workers would."""
    threads: list[threading.Thread] = []

    def waiting() -> list[Job]:
        return [job for job in jobs_of(user) if job.status not in TERMINAL]

    def soon(end: Callable[[str], Any], count: int = 1) -> None:
        def run() -> None:
            for job in wait_until(lambda: found if len(found := waiting()) == count else [], 10, what="jobs"):
                end(job.id)

        threads.append(threading.Thread(target=run))
        threads[-1].start()

    yield soon
    for thread in threads:
        thread.join(15)


def fail(code: ErrorCode) -> Callable[[str], None]:
    """End a job so."""

    def end(job_id: str) -> None:
        with transaction() as session:
            lifecycle.finish(session, job_id, Status.FAILED, spent=0, code=code, message="Not this.")

    return end


def film(job_id: str) -> None:
    """A film is in the storage, and the job is over."""
    succeed(job_id)
    with transaction() as session:
        made = session.query(Artifact).filter(Artifact.job_id == job_id).one()
        made.kind, made.key, made.width, made.height = "video", f"artifacts/{job_id}/1.mp4", 1280, 720


# ---------------------------------------------------------------- models and errors


def test_models(sdk: Callable[..., OpenAI]) -> None:
    client = sdk()
    ids = [model.id for model in client.models.list()]
    assert {FLUX, KLING} <= set(ids)
    assert client.models.retrieve(FLUX).id == FLUX


@pytest.mark.parametrize(
    ("given", "error", "param"),
    [
        ({"model": "gpt-image-1"}, openai.UnprocessableEntityError, "model"),
        ({"model": KLING}, openai.UnprocessableEntityError, "model"),
        ({"size": "huge"}, openai.UnprocessableEntityError, "size"),
        ({"quality": "hd"}, openai.UnprocessableEntityError, "quality"),
        ({"extra_body": {"quality": []}}, openai.UnprocessableEntityError, "quality"),
        ({"n": 11}, openai.UnprocessableEntityError, "n"),
        ({"extra_body": {"colour": "red"}}, openai.UnprocessableEntityError, "input.colour"),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    sdk: Callable[..., OpenAI], user: Api, given: dict[str, Any], error: type[Exception], param: str
) -> None:
    with pytest.raises(error) as refused:
        sdk().images.generate(**{"model": FLUX, "prompt": "a fox", **given})
    assert refused.value.param == param  # type: ignore[attr-defined]
    assert jobs_of(user) == []


def test_a_wrong_token(app: Flask) -> None:
    client = OpenAI(
        api_key="sk-wrong", base_url="http://x/v1", http_client=httpx2.Client(transport=Lossy(app))
    )
    with pytest.raises(openai.AuthenticationError):
        client.models.list()


# ---------------------------------------------------------------- pictures


def test_a_picture(sdk: Callable[..., OpenAI], user: Api, ending: Any) -> None:
    ending(succeed)
    made = sdk().images.generate(
        model=FLUX, prompt="a fox", size="1024x768", user="me", extra_body={"seed": 7}, output_format="png",
        quality="auto", stream=False, partial_images=0,
    )  # fmt: skip
    assert made.data is not None
    assert [picture.url for picture in made.data] == [user.get("/v1/jobs")["data"][0]["artifacts"][0]["url"]]
    (job,) = jobs_of(user)
    assert job.input == {"prompt": "a fox", "width": 1024, "height": 768, "seed": 7, "output_format": "png"}
    assert (job.dialect, made.created) == ("openai", int(job.created_at.timestamp()))


def test_a_picture_in_base64(sdk: Callable[..., OpenAI], ending: Any, tmp_path: Path) -> None:
    def stored(job_id: str) -> None:
        (tmp_path / "file").write_bytes(PNG)
        storage().put(f"artifacts/{job_id}/1.png", tmp_path / "file", "image/png")
        succeed(job_id)

    ending(stored)
    made = sdk().images.generate(model=FLUX, prompt="a fox", response_format="b64_json")
    assert made.data is not None
    assert base64.b64decode(made.data[0].b64_json or "") == PNG


def test_several_pictures_are_several_jobs_or_one(sdk: Callable[..., OpenAI], user: Api, ending: Any) -> None:
    ending(succeed, 3)
    made = sdk().images.generate(model=FLUX, prompt="a fox", n=3)
    assert (len(made.data or ()), len(jobs_of(user))) == (3, 3)
    ending(succeed)
    sdk().images.generate(model="flux/schnell", prompt="a fox", n=2)
    assert jobs_of(user)[-1].input["n"] == 2


def test_several_pictures_are_accepted_together_or_not_at_all(make_user: Any, app: Flask) -> None:
    poor = make_user(50)
    client = OpenAI(
        api_key=poor.token, base_url="http://x/v1", http_client=httpx2.Client(transport=Lossy(app))
    )
    with pytest.raises(openai.APIStatusError) as refused:
        client.images.generate(model=FLUX, prompt="a fox", n=3)
    assert (refused.value.status_code, jobs_of(poor), poor.credits()) == (402, [], (50, 0))


def test_an_edit_with_files(sdk: Callable[..., OpenAI], user: Api, ending: Any) -> None:
    ending(succeed)
    numbers = {"seed": 7, "guidance": 2.5}  # a form has only text
    sdk().images.edit(
        model="flux/fill", prompt="snow", image=("a.png", PNG), mask=("m.png", PNG), extra_body=numbers
    )
    url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert jobs_of(user)[0].input == {"prompt": "snow", "image": url, "mask": url, **numbers}
    ending(succeed)
    sdk().images.edit(model="flux/kontext-multi", prompt="both", image=[("a.png", PNG), ("b.png", PNG)])
    assert jobs_of(user)[1].input["images"] == [url, url]


def test_many_pictures_from_one_large_file_need_an_upload(
    sdk: Callable[..., OpenAI], user: Api, ending: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_images, "MOST_CHARACTERS", 3 * 4 * 30_000)
    large = png("a large one", 100, 100) + bytes(3 * 30_000)
    with pytest.raises(openai.APIStatusError) as refused:
        sdk().images.edit(model="flux/kontext-pro", prompt="snow", image=("a.png", large), n=3)
    assert (refused.value.status_code, refused.value.param) == (413, "n")
    assert ("/v1/uploads" in str(refused.value), jobs_of(user)) == (True, [])
    upload = user.ask("POST", "/v1/uploads", large, {"Content-Type": "application/octet-stream"}).json["id"]
    ending(succeed, 3)
    made = user.ask(
        "POST", "/v1/images/edits", {"model": "flux/kontext-pro", "prompt": "snow", "image": upload, "n": 3}
    )
    assert made.status == 200
    assert [job.input["image"] for job in jobs_of(user)] == [upload] * 3


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (ErrorCode.CONTENT_MODERATED, openai.BadRequestError),
        (ErrorCode.PROVIDER_FAILED, openai.APIStatusError),
    ],
)
def test_a_failure_is_told_and_not_repeated(
    sdk: Callable[..., OpenAI], user: Api, ending: Any, code: ErrorCode, error: type[openai.APIStatusError]
) -> None:
    ending(fail(code))
    with pytest.raises(error) as failed:
        sdk().images.generate(model=FLUX, prompt="a fox")
    assert (failed.value.code, len(jobs_of(user))) == (code, 1)


def test_what_takes_too_long_goes_on_and_is_not_made_twice(
    sdk: Callable[..., OpenAI], user: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_images, "HOLD_S", 0.2)
    with pytest.raises(openai.ConflictError) as late:
        sdk().images.generate(model=FLUX, prompt="a fox")
    (job,) = jobs_of(user)
    assert (late.value.code, job.id in str(late.value), job.status) == ("not_finished", True, "queued")


# ---------------------------------------------------------------- answers that are lost


def test_a_lost_answer_makes_no_second_job(sdk: Callable[..., OpenAI], user: Api, ending: Any) -> None:
    ending(succeed, 2)
    client = sdk(lost=2)
    made = client.images.generate(model=FLUX, prompt="a fox", n=2)
    assert (len(made.data or ()), len(jobs_of(user))) == (2, 2)
    video = sdk(lost=1).videos.create(model=KLING, prompt="rain")
    assert [job.id for job in jobs_of(user)[2:]] == [video.id]


def test_an_own_key_covers_all_jobs_of_a_call(sdk: Callable[..., OpenAI], user: Api, ending: Any) -> None:
    key = {"Idempotency-Key": "k" * 255}
    ending(succeed, 2)
    first, again = (
        sdk().images.generate(model=FLUX, prompt="a fox", n=2, extra_headers=key) for _ in range(2)
    )
    assert (first.data == again.data, len(jobs_of(user))) == (True, 2)


def test_asking_twice_makes_two(sdk: Callable[..., OpenAI], user: Api) -> None:
    client = sdk()
    first, second = (client.videos.create(model=KLING, prompt="rain") for _ in range(2))
    assert first.id != second.id
    assert sdk(lost=1).videos.create(model=KLING, prompt="rain").id not in (first.id, second.id)
    assert len(jobs_of(user)) == 3


def test_our_own_submit_is_protected_as_well(user: Api) -> None:
    body = {"model": FLUX, "input": {"prompt": "a fox"}}
    first = user.ask("POST", "/v1/jobs", body, {"x-stainless-retry-count": "0"})
    again = user.ask("POST", "/v1/jobs", body, {"x-stainless-retry-count": "1"})
    assert (again.json["id"], again.headers["idempotent-replayed"]) == (first.json["id"], "true")
    other = user.ask("POST", "/v1/jobs", {**body, "priority": 1}, {"x-stainless-retry-count": "1"})
    assert other.json["id"] != first.json["id"]


def tried(user: Api, number: int, path: str = "/v1/videos", **more: Any) -> Answer:
    """The same call, as an SDK sends it the how manieth time."""
    body = {"model": KLING, "prompt": "rain", **more}
    return user.ask("POST", path, body, {"x-stainless-retry-count": str(number)})


def test_equal_calls_whose_answers_are_all_lost_get_a_job_each(user: Api) -> None:
    made = [tried(user, 0).json["id"] for _ in range(4)]
    assert len(set(made)) == 4
    for number in (1, 2):
        again = [tried(user, number) for _ in range(4)]
        assert sorted(answer.json["id"] for answer in again) == sorted(made)
        assert all(answer.headers["idempotent-replayed"] == "true" for answer in again)
    assert len(jobs_of(user)) == 4


def test_calls_one_after_the_other_get_the_latest_job(user: Api) -> None:
    tried(user, 0)
    second = tried(user, 0).json["id"]
    assert [tried(user, number).json["id"] for number in (1, 2)] == [second, second]
    third = tried(user, 0).json["id"]
    assert tried(user, 1).json["id"] == third


def test_a_first_try_that_its_repeat_overtook_gets_its_job_once(user: Api) -> None:
    made = tried(user, 1).json["id"]
    late = tried(user, 0)
    assert (late.json["id"], late.headers["idempotent-replayed"]) == (made, "true")
    assert tried(user, 0).json["id"] != made
    assert len(jobs_of(user)) == 2


@pytest.mark.parametrize(
    ("age", "number", "expected"),
    [(repeats.OVERTAKEN_BY, 0, 2), (repeats.REPEATED_WITHIN, 1, 2), (repeats.OVERTAKEN_BY, 1, 1)],
)
def test_tries_are_remembered_for_a_while(user: Api, age: timedelta, number: int, expected: int) -> None:
    tried(user, 1)
    with transaction() as session:
        session.execute(
            update(IdempotencyKey)
            .where(IdempotencyKey.user_id == user.user_id)
            .values(created_at=clock.now() - age - timedelta(seconds=1))
        )
    tried(user, number)
    assert len(jobs_of(user)) == expected


def test_the_repeat_of_a_call_over_the_limit_is_no_repeat_of_another(
    user: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = settings().model_copy(update={"rate_limit_submits": "1/hour"})
    first = tried(user, 0).json["id"]
    with monkeypatch.context() as patch:
        patch.setattr(rates, "settings", lambda: none)
        assert tried(user, 0, prompt="fog").status == 200
        assert tried(user, 0).status == tried(user, 1).status == 429
        assert tried(user, 0, prompt="snow").status == 429
    second = tried(user, 2)
    assert (second.status, "idempotent-replayed" in second.headers) == (200, False)
    assert tried(user, 1).json["id"] == first  # the answer to the first call was lost
    assert tried(user, 3).json["id"] == second.json["id"]
    assert len(jobs_of(user)) == 3


def test_the_repeat_of_a_call_that_failed_is_no_repeat_of_another(
    user: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise Unavailable

    pictures = {"path": "/v1/images/generations", "model": FLUX, "n": 2}
    monkeypatch.setattr(openai_images, "HOLD_S", 0.01)
    tried(user, 0, **pictures)
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "accept", fail)
        assert [tried(user, number, **pictures).status for number in (0, 1)] == [503, 503]
    assert "idempotent-replayed" not in tried(user, 2, **pictures).headers
    assert len(jobs_of(user)) == 4
    assert "idempotent-replayed" in tried(user, 1, **pictures).headers
    tried(user, 0, **pictures)
    assert len(jobs_of(user)) == 6


# ---------------------------------------------------------------- films


def test_a_film_from_its_creation_to_its_end(sdk: Callable[..., OpenAI], user: Api, ending: Any) -> None:
    client = sdk()
    five: Any = "5"  # not one of OpenAI's own lengths
    video = client.videos.create(
        model=KLING, prompt="rain", seconds=five, size="1280x720", extra_body={"mode": "pro"}
    )
    assert (video.object, video.status, video.seconds, video.size, video.progress) == (
        "video", "queued", "5", "1280x720", 0,
    )  # fmt: skip
    (job,) = jobs_of(user)
    assert job.input == {"prompt": "rain", "duration_s": 5, "aspect_ratio": "16:9", "mode": "pro"}
    with pytest.raises(openai.ConflictError):
        client.with_options(max_retries=0).videos.download_content(video.id)
    film(video.id)
    done = client.videos.poll(video.id)
    assert (done.status, done.progress, done.size) == ("completed", 100, "1280x720")
    assert done.completed_at is not None
    assert client.videos.delete(video.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve(video.id)


def test_waiting_for_a_film(sdk: Callable[..., OpenAI], user: Api, ending: Any) -> None:
    ending(film)
    done = sdk().videos.create_and_poll(model=KLING, prompt="rain", poll_interval_ms=20)
    assert (done.status, [job.id for job in jobs_of(user)]) == ("completed", [done.id])


def test_the_sdk_follows_to_the_film(sdk: Callable[..., OpenAI], tmp_path: Path) -> None:
    client = sdk()
    video = client.videos.create(model=KLING, prompt="rain")
    (tmp_path / "film").write_bytes(b"a film")
    storage().put(f"artifacts/{video.id}/1.mp4", tmp_path / "film", "video/mp4")
    film(video.id)
    assert client.videos.download_content(video.id).read() == b"a film"


def test_its_content_is_in_the_operators_storage(user: Api) -> None:
    video = user.post("/v1/videos", {"model": KLING, "prompt": "rain"})
    film(video["id"])
    answer = user.ask("GET", f"/v1/videos/{video['id']}/content")
    assert (answer.status, answer.headers["location"]) == (
        302, user.get(f"/v1/jobs/{video['id']}")["artifacts"][0]["url"],
    )  # fmt: skip
    assert user.ask("GET", f"/v1/videos/{video['id']}/content?variant=spritesheet").status == 404


def test_a_first_frame_is_a_file_or_an_address(sdk: Callable[..., OpenAI], user: Api) -> None:
    client = sdk()
    client.videos.create(model="kling/image-to-video", prompt="it runs", input_reference=("a.png", PNG))
    assert jobs_of(user)[0].input["image"].startswith("data:image/png;base64,")
    address = {"image_url": "https://example.com/1.png"}  # the SDK itself sends only files
    user.post(
        "/v1/videos", {"model": "kling/image-to-video", "prompt": "it runs", "input_reference": address}
    )
    assert jobs_of(user)[1].input["image"] == "https://example.com/1.png"


def test_films_are_listed_both_ways_and_remixed(sdk: Callable[..., OpenAI], user: Api, other: Api) -> None:
    client = sdk()
    made = [client.videos.create(model=KLING, prompt=str(number)).id for number in range(3)]
    user.post("/v1/jobs", {"model": FLUX, "input": {"prompt": "no film"}})
    assert [video.id for video in client.videos.list(limit=2)] == made[::-1]
    assert [video.id for video in client.videos.list(limit=2, order="asc")] == made
    remix = client.videos.remix(made[0], prompt="snow")
    assert (remix.remixed_from_video_id, remix.prompt) == (made[0], "snow")
    assert other.ask("GET", f"/v1/videos/{made[0]}").status == 404


def test_a_film_of_our_own_api_is_a_video_too(sdk: Callable[..., OpenAI], user: Api) -> None:
    own = {"seconds": "soon", "size": ["any"]}  # its user's words, not this dialect's
    job = user.post("/v1/jobs", {"model": KLING, "input": {"prompt": "rain"}, "metadata": own})
    video = sdk().videos.retrieve(job["id"])
    assert (video.seconds, video.size, video.prompt) == ("", "", "rain")
    assert sdk().videos.remix(video.id, prompt="snow").seconds == ""
    assert len(list(sdk().videos.list())) == 2


@pytest.mark.parametrize(
    ("given", "param"),
    [({"seconds": "7"}, "input.duration_s"), ({"size": "x"}, "size"), ({"input_reference": "x"}, "input_reference"),
     ({"model": FLUX}, "model"), ({"mode": "slow"}, "input.mode")],
)  # fmt: skip
def test_what_a_film_cannot_be(user: Api, given: dict[str, Any], param: str) -> None:
    refused = user.ask("POST", "/v1/videos", {"model": KLING, "prompt": "rain", **given})
    assert (refused.status, refused.json["error"]["param"]) == (422, param)


# ---------------------------------------------------------------- webhooks, as the SDK manages and checks them


def test_webhook_endpoints(sdk: Callable[..., OpenAI]) -> None:
    client = sdk()
    made = client.webhooks.create(
        url="https://example.com/hook", name="mine", event_types=["video.completed"]
    )
    assert made.signing_secret.startswith("whsec_")
    assert client.webhooks.retrieve(made.id).event_types == ["video.completed"]
    assert client.webhooks.update(made.id, name="yours").name == "yours"
    rotated = client.webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True)
    assert rotated.signing_secret != made.signing_secret
    assert [each.id for each in client.webhooks.list()] == [made.id]
    assert "video.failed" in client.webhooks.event_types.list().data
    assert client.webhooks.delete(made.id).deleted
