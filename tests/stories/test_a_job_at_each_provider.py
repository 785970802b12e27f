"""One job per provider, from the HTTP request to bytes in the operator's storage and a settled account."""

from __future__ import annotations

import hashlib
import urllib.request
from typing import Any

import pytest

from tests.infrastructure.client import Client
from tests.stories.conftest import Installation

MODELS = ("midjourney/imagine", "kling/text-to-video", "jimeng/text-to-image", "flux/pro-1.1")


def fetch(url: str) -> tuple[bytes, str]:
    """What a browser would get."""
    with urllib.request.urlopen(url, timeout=10) as reply:
        return reply.read(), reply.headers["Content-Type"]


def storage_url(installation: Installation) -> str:
    """Where every artifact must be."""
    return (
        installation.world.cos.url if installation.kind == "large" else f"{installation.platform.url}/media/"
    )


def entries(user: Client, job_id: str) -> list[tuple[str, int, int]]:
    """Kind and deltas of a job's ledger entries, the oldest first."""
    found = [entry for entry in user.get("/v1/credits/ledger")["data"] if entry["job_id"] == job_id]
    return [(entry["kind"], entry["available_delta"], entry["held_delta"]) for entry in reversed(found)]


def assert_stored(installation: Installation, job: dict[str, Any]) -> None:
    """Its artifacts are in the operator's storage, byte for byte what the provider made."""
    made = installation.world.made_for(job["input"]["prompt"])
    assert len(job["artifacts"]) == len(made) > 0
    for artifact, original in zip(job["artifacts"], made, strict=True):
        assert artifact["url"].startswith(storage_url(installation))
        content, content_type = fetch(artifact["url"])
        assert content == original
        assert artifact["sha256"] == hashlib.sha256(original).hexdigest()
        assert (artifact["bytes"], artifact["content_type"]) == (len(original), content_type)
        assert artifact["thumbnail_url"].startswith(storage_url(installation))
        assert fetch(artifact["thumbnail_url"])[0][:2] == b"\xff\xd8"


@pytest.mark.parametrize("model", MODELS)
def test_from_the_request_to_the_stored_result(installation: Installation, model: str) -> None:
    user = installation.user(credits=1000)
    prompt = f"{model} for {user.token[-8:]}"
    accepted = user.ask("POST", "/v1/jobs", {"model": model, "input": {"prompt": prompt}})
    assert accepted.status == 202, accepted.body
    job = accepted.json
    assert accepted.headers["location"].endswith(f"/v1/jobs/{job['id']}")
    price = job["cost"]["held"]
    assert price > 0
    assert job["cost"]["charged"] is None
    assert user.credits() == (1000 - price, price)

    done = user.ended(job["id"])
    assert done["status"] == "succeeded", done["error"]
    assert (done["progress"], done["error"], done["attempts"], done["late"]) == (100, None, 1, False)
    assert done["cost"] == {"held": price, "charged": price}
    assert done["created_at"] <= done["submitted_at"] <= done["finished_at"]
    assert_stored(installation, done)
    assert user.credits() == (1000 - price, 0)
    assert entries(user, job["id"]) == [("hold", -price, price), ("capture", 0, -price)]
    assert installation.world.submits(prompt) == 1
    assert installation.world.media.leaks == []


def test_flux_goes_through_the_other_account_when_one_is_out_of_money(installation: Installation) -> None:
    user = installation.user()
    world = installation.world
    with world.out_of_money("bfl"):
        jobs = [user.submit("flux/pro-1.1", f"broke {number} {user.token[-8:]}") for number in range(3)]
        done = [user.ended(job["id"]) for job in jobs]
    assert [job["status"] for job in done] == ["succeeded"] * 3
    assert all(world.submits(job["input"]["prompt"]) == 1 for job in done)
    assert all(world.fal.made(job["input"]["prompt"]) for job in done)


def test_a_refused_prompt_costs_nothing(installation: Installation) -> None:
    user = installation.user(credits=1000)
    for model in MODELS:
        job = user.ended(user.submit(model, "[moderate-input] something forbidden")["id"])
        assert (job["status"], job["error"]["code"]) == ("failed", "content_moderated"), job
        assert job["cost"]["charged"] == 0
        assert job["artifacts"] == []
    assert user.credits() == (1000, 0)


def test_a_failed_generation_costs_nothing(installation: Installation) -> None:
    user = installation.user(credits=1000)
    for model in MODELS:
        job = user.ended(user.submit(model, "[fail] this one breaks")["id"])
        assert (job["status"], job["error"]["code"]) == ("failed", "provider_failed"), job
    assert user.credits() == (1000, 0)


def test_wait_holds_the_answer_until_the_job_is_done(installation: Installation) -> None:
    user = installation.user()
    answer = user.ask(
        "POST", "/v1/jobs", {"model": "flux/pro-1.1", "input": {"prompt": "soon"}}, {"Prefer": "wait=20"}, 30
    )
    assert (answer.status, answer.json["status"]) == (200, "succeeded")
    assert answer.json["artifacts"][0]["url"].startswith(storage_url(installation))


def test_a_running_job_can_be_canceled(installation: Installation) -> None:
    user = installation.user(credits=1000)
    job = user.submit("kling/text-to-video", "[run=30] slow boat")
    user.until(job["id"], lambda seen: seen["status"] == "running")
    answer = user.ask("POST", f"/v1/jobs/{job['id']}/cancel")
    assert answer.status == 200, answer.body
    done = user.ended(job["id"])
    assert (done["status"], done["error"]["code"]) == ("canceled", "canceled")
    assert done["cost"]["charged"] == done["cost"]["held"]  # Kling cannot cancel: CANCEL_CHARGE
    assert user.credits() == (1000 - done["cost"]["held"], 0)
    assert user.ask("POST", f"/v1/jobs/{job['id']}/cancel").status == 409
