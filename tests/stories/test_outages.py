"""The broker goes away, forgets everything or hangs: jobs are accepted all the same, and all of them end."""

from __future__ import annotations

from tests.infrastructure.client import Client
from tests.stories.conftest import Installation


def assert_all_succeed(installation: Installation, user: Client, prompts: list[str], ids: list[str]) -> None:
    jobs = [user.ended(job_id, 60) for job_id in ids]
    assert [job["status"] for job in jobs] == ["succeeded"] * len(jobs), [job["error"] for job in jobs]
    assert {installation.world.submits(prompt) for prompt in prompts} == {1}
    assert user.credits()[1] == 0


def test_jobs_are_accepted_without_a_broker_and_go_on_when_it_is_back(installation: Installation) -> None:
    user, valkey = installation.user(), installation.valkey
    valkey.kill9()
    answers = [
        user.ask("POST", "/v1/jobs", {"model": "flux/pro-1.1", "input": {"prompt": f"no broker {number}"}})
        for number in range(5)
    ]
    assert [answer.status for answer in answers] == [202] * 5
    assert max(answer.took_s for answer in answers) < 1.0
    assert user.get("/readyz")["status"] == "degraded"

    valkey.start()
    valkey.pause()
    hung = user.ask("POST", "/v1/jobs", {"model": "flux/pro-1.1", "input": {"prompt": "broker hangs"}})
    assert (hung.status, hung.took_s < 1.0) == (202, True)
    valkey.resume()

    ids = [answer.json["id"] for answer in (*answers, hung)]
    prompts = [f"no broker {number}" for number in range(5)] + ["broker hangs"]
    assert_all_succeed(installation, user, prompts, ids)


def test_a_broker_that_forgets_everything_loses_no_job(installation: Installation) -> None:
    user = installation.user()
    prompts = [f"forgotten {number} [run=3]" for number in range(20)]
    ids = [user.submit("jimeng/text-to-image", prompt)["id"] for prompt in prompts]
    user.until(ids[0], lambda job: job["status"] == "running")
    for _ in range(3):
        installation.valkey.flush()
        user.until(ids[-1], lambda job: job["progress"] >= 0)
    assert_all_succeed(installation, user, prompts, ids)
