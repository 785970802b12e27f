"""A media host that serves something else than what was made: for a moment, and for good."""

from __future__ import annotations

from tests.simulators.frame import Fault
from tests.stories.conftest import Installation
from tests.stories.test_a_job_at_each_provider import assert_stored


def test_one_page_of_a_host_in_trouble_is_no_verdict(installation: Installation) -> None:
    user = installation.user()
    installation.world.media.misbehave(Fault("garbage", times=1))
    job = user.ended(user.submit("flux/schnell", "served badly once [run=1]")["id"], 30)
    assert job["status"] == "succeeded", job["error"]
    assert_stored(installation, job)


def test_what_is_never_media_fails_the_job_and_costs_nothing(installation: Installation) -> None:
    user = installation.user(credits=1000)
    installation.world.media.misbehave(Fault("garbage", times=20))
    job = user.ended(user.submit("flux/schnell", "never served well [run=1]")["id"], 60)
    assert (job["status"], job["error"]["code"], job["cost"]["charged"]) == ("failed", "storage_failed", 0)
    assert user.credits() == (1000, 0)
