"""What a user of the official openai SDK does, as a program of its own: PYTHONPATH chooses the SDK's major.

`python tests/stories/openai_client.py ADDRESS TOKEN` reads from its input, as JSON, which calls to make with what, and
prints what they returned.
"""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from typing import Any

import openai
from openai import OpenAI

PICTURE, FILM = "flux/pro-1.1", "kling/text-to-video"


def pictures(client: OpenAI, prompt: str) -> dict[str, Any]:
    """Two pictures in one call."""
    made = client.images.generate(model=PICTURE, prompt=prompt, n=2)
    return {"urls": [picture.url for picture in made.data or ()]}


def film(client: OpenAI, prompt: str) -> dict[str, Any]:
    """A film: made, waited for, fetched, listed."""
    video = client.videos.create(model=FILM, prompt=prompt)
    done = client.videos.poll(video.id, poll_interval_ms=200)
    content = client.videos.download_content(video.id).read()
    return {
        "id": video.id,
        "status": done.status,
        "sha256": hashlib.sha256(content).hexdigest(),
        "listed": [each.id for each in client.videos.list(limit=10)],
    }


def deletion(client: OpenAI, video_id: str) -> dict[str, Any]:
    """The film is deleted; is it still there?"""
    deleted = client.videos.delete(video_id).deleted
    try:
        client.videos.retrieve(video_id)
    except openai.NotFoundError:
        return {"deleted": deleted, "found": False}
    return {"deleted": deleted, "found": True}


def webhook(client: OpenAI, payload: str, headers: dict[str, str], secret: str) -> dict[str, Any]:
    """What was told is believed if it is signed, and only then."""
    event = client.webhooks.unwrap(payload, headers, secret=secret)
    try:
        client.webhooks.unwrap(payload.replace("video", "voodoo"), headers, secret=secret)
    except openai.InvalidWebhookSignatureError:
        return {"type": event.type, "id": event.data.id, "forged": False}  # type: ignore[union-attr]
    return {"forged": True}


CALLS = {call.__name__: call for call in (pictures, film, deletion, webhook)}


def main(address: str, token: str) -> None:
    """Make the calls and print what they returned, and with which SDK."""
    warnings.filterwarnings("ignore", "The Sora API", DeprecationWarning)  # of OpenAI's own service
    with OpenAI(api_key=token, base_url=f"{address}/v1") as client:
        made = {name: CALLS[name](client, **given) for name, given in json.load(sys.stdin).items()}
    print(json.dumps({**made, "sdk": openai.__version__}))


if __name__ == "__main__":
    main(*sys.argv[1:])
