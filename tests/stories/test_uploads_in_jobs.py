"""What a user has uploaded goes into jobs by its id, as bytes to Midjourney, by its address to Kling; then it goes."""

from __future__ import annotations

import base64
import urllib.error
import urllib.request

from tests.infrastructure.children import wait_until
from tests.simulators.media import mp4, png
from tests.stories.conftest import Installation


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as reply:
        content: bytes = reply.read()
    return content


def is_gone(url: str) -> bool:
    try:
        fetched(url)
    except urllib.error.HTTPError as error:
        return error.code == 404
    return False


def test_uploads_in_jobs(installation: Installation) -> None:
    user, world = installation.user(), installation.world
    mark = user.token[-8:]
    fox, hat, film = png(f"fox {mark}"), png(f"hat {mark}"), mp4(f"film {mark}")
    uploads = [user.post("/v1/uploads", content) for content in (fox, hat, film)]
    ids = [upload["id"] for upload in uploads]
    wanted = {
        "midjourney/blend": {"images": ids[:2]},
        "kling/image-to-video": {"prompt": f"it runs {mark}", "image": ids[0]},
        "kling/lip-sync": {"video": ids[2], "text": f"it speaks {mark}", "voice_id": "v"},
    }
    jobs = [user.post("/v1/jobs", {"model": model, "input": given}) for model, given in wanted.items()]
    for job in map(user.ended, [job["id"] for job in jobs]):
        assert (job["status"], job["input"]) == ("succeeded", wanted[job["model"]]), job["error"]

    (runs,) = world.kling.made(f"it runs {mark}")
    (speaks,) = world.kling.made(f"it speaks {mark}")
    assert fetched(runs.body["image"]) == fox
    assert fetched(speaks.body["input"]["video_url"]) == film
    blends = [call.json()["base64Array"] for call in world.midjourney.calls if call.path.endswith("/blend")]
    sent = [f"data:image/png;base64,{base64.b64encode(content).decode()}" for content in (fox, hat)]
    assert blends.count(sent) == 1

    assert fetched(uploads[0]["url"]) == fox
    for upload in uploads:
        assert user.ask("DELETE", f"/v1/uploads/{upload['id']}").status == 204
        wait_until(
            lambda url=upload["url"]: is_gone(url), 20, what=f"removal of {upload['url']}", every_s=0.05
        )
