"""Exactly what goes over the wire: method, URL, headers and body of every call to BFL and fal."""

from __future__ import annotations

from typing import Any

import pytest

from common.providers.base import (
    Accepted,
    Handle,
)
from tests.unit.providers.fakes import (
    PICTURE_URL,
    UPLOAD,
    UPLOAD_BASE64,
    FakeHttp,
    Sent,
    adapter,
    handle,
    reply,
    run,
    sent,
    submission,
)


@pytest.mark.parametrize(
    ("model", "wanted", "path", "body"),
    [
        ("flux/pro-1.1", {"seed": 42, "width": 512, "height": 768, "output_format": "png"}, "/v1/flux-pro-1.1",
         {"seed": 42, "width": 512, "height": 768, "output_format": "png", "prompt_upsampling": False,
          "safety_tolerance": 2}),
        ("flux/pro-1.1", {"aspect_ratio": "1:1"}, "/v1/flux-pro-1.1",
         {"width": 1024, "height": 1024, "output_format": "jpeg", "prompt_upsampling": False, "safety_tolerance": 2}),
        ("flux/pro-1.1-ultra", {"raw": True, "aspect_ratio": "21:9"}, "/v1/flux-pro-1.1-ultra",
         {"raw": True, "aspect_ratio": "21:9", "output_format": "jpeg", "prompt_upsampling": False,
          "safety_tolerance": 2}),
        ("flux/dev", {"guidance": 4.5}, "/v1/flux-dev",
         {"width": 1024, "height": 768, "steps": 28, "guidance": 4.5, "output_format": "jpeg"}),
        ("flux/2-pro", {"safety_tolerance": 0}, "/v1/flux-2-pro",
         {"width": 1024, "height": 768, "safety_tolerance": 0, "output_format": "jpeg"}),
        ("flux/pro-1.1-ultra", {"image": UPLOAD, "image_prompt_strength": 0.4}, "/v1/flux-pro-1.1-ultra",
         {"image_prompt": UPLOAD_BASE64, "image_prompt_strength": 0.4, "aspect_ratio": "16:9", "raw": False,
          "output_format": "jpeg", "prompt_upsampling": False, "safety_tolerance": 2}),
        ("flux/kontext-pro", {}, "/v1/flux-kontext-pro", {"safety_tolerance": 2, "output_format": "jpeg"}),
        ("flux/kontext-pro", {"image": PICTURE_URL, "aspect_ratio": "1:1"}, "/v1/flux-kontext-pro",
         {"input_image": UPLOAD_BASE64, "aspect_ratio": "1:1", "safety_tolerance": 2, "output_format": "jpeg"}),
        ("flux/kontext-max", {}, "/v1/flux-kontext-max",
         {"input_image": UPLOAD_BASE64, "safety_tolerance": 2, "output_format": "jpeg"}),
        ("flux/kontext-multi", {"images": [UPLOAD] * 3}, "/v1/flux-kontext-pro",
         {"input_image": UPLOAD_BASE64, "input_image_2": UPLOAD_BASE64, "input_image_3": UPLOAD_BASE64,
          "safety_tolerance": 2, "output_format": "jpeg"}),
        ("flux/fill", {"mask": UPLOAD, "steps": 20}, "/v1/flux-pro-1.0-fill",
         {"image": UPLOAD_BASE64, "mask": UPLOAD_BASE64, "steps": 20, "prompt_upsampling": False,
          "safety_tolerance": 2, "output_format": "jpeg"}),
        ("flux/expand", {"left": 256}, "/v1/flux-pro-1.0-expand",
         {"image": UPLOAD_BASE64, "top": 0, "bottom": 0, "left": 256, "right": 0, "steps": 50,
          "prompt_upsampling": False, "safety_tolerance": 2, "output_format": "jpeg"}),
        ("flux/2-pro", {"images": [UPLOAD] * 2}, "/v1/flux-2-pro",
         {"input_image": UPLOAD_BASE64, "input_image_2": UPLOAD_BASE64, "safety_tolerance": 2,
          "output_format": "jpeg"}),
        ("flux/2-max", {"images": [UPLOAD], "width": 512, "height": 512}, "/v1/flux-2-max",
         {"input_image": UPLOAD_BASE64, "width": 512, "height": 512, "safety_tolerance": 2,
          "output_format": "jpeg"}),
        ("flux/2-flex", {"guidance": 6}, "/v1/flux-2-flex",
         {"width": 1024, "height": 768, "guidance": 6, "steps": 50, "prompt_upsampling": True, "safety_tolerance": 2,
          "output_format": "jpeg"}),
        ("flux/2-klein-4b", {}, "/v1/flux-2-klein-4b",
         {"width": 1024, "height": 768, "safety_tolerance": 2, "output_format": "jpeg"}),
        ("flux/2-klein-9b", {}, "/v1/flux-2-klein-9b",
         {"width": 1024, "height": 768, "safety_tolerance": 2, "output_format": "jpeg"}),
    ],
)  # fmt: skip
def test_bfl_bodies(model: str, wanted: dict[str, Any], path: str, body: dict[str, Any]) -> None:
    assert sent("bfl", model, input=wanted) == Sent(
        "POST", f"https://api.bfl.ai{path}", {"x-key": "bfl-k3y"}, {"prompt": "a red fox", **body}, None
    )


@pytest.mark.parametrize(
    ("base", "is_sent"),
    [("https://api.bfl.ai", False), ("https://api.eu.bfl.ai", True), ("https://api.us1.bfl.ai", True),
     ("http://127.0.0.1:9000", False), ("https://gateway.bfl.ai", False)],
)  # fmt: skip
def test_a_webhook_goes_to_regional_hosts_only(base: str, is_sent: bool) -> None:
    http, made = FakeHttp(reply(500)), adapter("bfl", base_url=base)
    run(made.submit(http, submission("flux/dev")))
    assert ("webhook_url" in http.sent[0].json) is is_sent
    assert made.finds_by_callback is is_sent


@pytest.mark.parametrize(
    ("base", "told", "asked"),
    [
        ("https://api.bfl.ai", "https://api.eu1.bfl.ai/v1/get_result?id=1", "told"),
        ("https://api.bfl.ai", "https://gateway.bfl.ai/x", "told"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9001/poll?id=1", "told"),
        ("http://127.0.0.1:9000", "http://localhost:9001/poll?id=1", "told"),
        ("http://flux.internal:80", "http://flux.internal:81/poll", "told"),
        ("https://api.bfl.ai", "http://api.eu1.bfl.ai/v1/get_result?id=1", "own"),
        ("https://api.bfl.ai", "https://bfl.ai.evil.example/x", "own"),
        ("https://api.bfl.ai", "https://evilbfl.ai/x", "own"),
        ("https://api.bfl.ai", "https://api.bfl.ai@evil.example/x", "own"),
        ("https://api.bfl.ai", "https://evil.example\\@api.bfl.ai/x", "own"),
        ("https://api.bfl.ai", "https://169.254.169.254/latest", "own"),
        ("https://api.bfl.ai", "http://127.0.0.1/x", "own"),
        ("https://api.bfl.ai", "https://[::1/x", "own"),
        ("https://api.bfl.ai", "https://api.bfl.ai:99999/x", "own"),
        ("https://api.bfl.ai", "file:///etc/passwd", "own"),
        ("https://api.bfl.ai", 7, "own"),
        ("https://api.bfl.ai", None, "own"),
    ],
)
def test_bfl_is_polled_where_it_says_unless_the_key_would_leak(base: str, told: Any, asked: str) -> None:
    made = adapter("bfl", base_url=base)
    verdict = run(
        made.submit(FakeHttp(reply(200, {"id": "a/1", "polling_url": told})), submission("flux/dev"))
    )
    assert verdict.memo == ({"polling_url": told} if asked == "told" else {})
    for memo in (verdict.memo, {"polling_url": told}):  # the memo is checked again: it lay in a database
        http = FakeHttp(reply(500))
        run(made.poll(http, [Handle(model="flux/dev", reference="r", provider_ref="a/1", memo=memo)]))
        expected = told if asked == "told" else f"{base}/v1/get_result?id=a%2F1"
        assert http.sent == [Sent("GET", expected, {"x-key": "bfl-k3y"}, None, None)]


@pytest.mark.parametrize(
    ("model", "wanted", "path", "body"),
    [
        ("flux/schnell", {"n": 3}, "fal-ai/flux/schnell",
         {"image_size": {"width": 1024, "height": 768}, "num_images": 3, "num_inference_steps": 4,
          "output_format": "jpeg"}),
        ("flux/dev", {"guidance": 4.5, "aspect_ratio": "9:16"}, "fal-ai/flux/dev",
         {"image_size": {"width": 768, "height": 1344}, "num_inference_steps": 28, "guidance_scale": 4.5,
          "output_format": "jpeg"}),
        ("flux/pro-1.1", {"seed": 42, "safety_tolerance": 5, "prompt_upsampling": True}, "fal-ai/flux-pro/v1.1",
         {"image_size": {"width": 1024, "height": 768}, "seed": 42, "safety_tolerance": "5", "enhance_prompt": True,
          "output_format": "jpeg"}),
        ("flux/pro-1.1-ultra", {"raw": True}, "fal-ai/flux-pro/v1.1-ultra",
         {"aspect_ratio": "16:9", "raw": True, "safety_tolerance": "2", "enhance_prompt": False,
          "output_format": "jpeg"}),
        ("flux/2-pro", {"safety_tolerance": 0, "output_format": "png"}, "fal-ai/flux-2-pro",
         {"image_size": {"width": 1024, "height": 768}, "safety_tolerance": "1", "output_format": "png"}),
        ("flux/pro-1.1-ultra", {"image": PICTURE_URL}, "fal-ai/flux-pro/v1.1-ultra",
         {"image_url": PICTURE_URL, "aspect_ratio": "16:9", "raw": False, "safety_tolerance": "2",
          "enhance_prompt": False, "output_format": "jpeg"}),
        ("flux/dev-image-to-image", {"image": UPLOAD, "strength": 0.6}, "fal-ai/flux/dev/image-to-image",
         {"image_url": f"data:image/png;base64,{UPLOAD_BASE64}", "strength": 0.6, "num_inference_steps": 28,
          "output_format": "jpeg"}),
        ("flux/kontext-pro", {}, "fal-ai/flux-pro/kontext/text-to-image",
         {"safety_tolerance": "2", "output_format": "jpeg"}),
        ("flux/kontext-pro", {"image": PICTURE_URL, "aspect_ratio": "1:1"}, "fal-ai/flux-pro/kontext",
         {"image_url": PICTURE_URL, "aspect_ratio": "1:1", "safety_tolerance": "2", "output_format": "jpeg"}),
        ("flux/kontext-max", {}, "fal-ai/flux-pro/kontext/max",
         {"image_url": PICTURE_URL, "safety_tolerance": "2", "output_format": "jpeg"}),
        ("flux/kontext-multi", {}, "fal-ai/flux-pro/kontext/multi",
         {"image_urls": [PICTURE_URL] * 2, "safety_tolerance": "2", "output_format": "jpeg"}),
        ("flux/2-pro", {"images": [PICTURE_URL]}, "fal-ai/flux-2-pro/edit",
         {"image_urls": [PICTURE_URL], "safety_tolerance": "2", "output_format": "jpeg"}),
    ],
)  # fmt: skip
def test_fal_bodies(model: str, wanted: dict[str, Any], path: str, body: dict[str, Any]) -> None:
    hook = "?fal_webhook=https%3A%2F%2Fapi.example.com%2Fcallbacks%2Ft0ken"
    assert sent("fal", model, input=wanted) == Sent(
        "POST",
        f"https://queue.fal.run/{path}{hook}",
        {"Authorization": "Key fal-id:fal-s3cret"},
        {"prompt": "a red fox", **body},
        None,
    )
    assert sent("fal", model, input=wanted, callback_url=None).url == f"https://queue.fal.run/{path}"


FAL = "https://queue.fal.run/fal-ai/flux-pro/requests/80e7"


@pytest.mark.parametrize(
    ("base", "told", "trusted"),
    [
        ("https://queue.fal.run", "https://queue.fal.run/fal-ai/flux-pro/requests/80e7/status", True),
        ("https://queue.fal.run", "https://queue.falrun.com/x/requests/80e7/status", True),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000/x/requests/80e7/status", True),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9001/x/status", False),
        ("https://queue.fal.run", "http://queue.fal.run/x/status", False),
        ("https://queue.fal.run", "https://fal.run.evil.example/x", False),
        ("https://queue.fal.run", None, False),
    ],
)
def test_fal_is_polled_where_it_says_unless_the_key_would_leak(base: str, told: Any, trusted: bool) -> None:
    made = adapter("fal", base_url=base)
    accepted = run(
        made.submit(
            FakeHttp(reply(200, {"request_id": "80e7", "status_url": told})), submission("flux/pro-1.1")
        )
    )
    assert accepted.memo == ({"status_url": told} if trusted else {})
    http = FakeHttp(reply(500))
    run(
        made.poll(
            http, [Handle(model="flux/pro-1.1", reference="r", provider_ref="80e7", memo=accepted.memo)]
        )
    )
    built = f"{base}/fal-ai/flux-pro/requests/80e7/status"  # owner and app only
    assert http.sent == [
        Sent("GET", told if trusted else built, {"Authorization": "Key fal-id:fal-s3cret"}, None, None)
    ]


def test_a_url_of_another_request_is_not_asked() -> None:
    other = f"{FAL.removesuffix('80e7')}80e8"
    http = FakeHttp(reply(200, {"status": "COMPLETED", "request_id": "80e7"}), reply(500))
    told = {"status_url": f"{other}/status", "response_url": other}
    run(adapter("fal").poll(http, [handle("flux/pro-1.1", "80e7", **told)]))
    assert [request.url for request in http.sent] == [f"{FAL}/status", FAL]


def test_a_completed_request_is_fetched_always() -> None:
    http = FakeHttp(reply(200, {"status": "COMPLETED", "error": "x"}), reply(500))
    run(adapter("fal").poll(http, [handle("flux/pro-1.1", "80e7")]))
    assert [request.url for request in http.sent] == [f"{FAL}/status", FAL]


@pytest.mark.parametrize(
    ("status", "word", "confirmed"),
    [(200, "OK", True), (202, "CANCELLATION_REQUESTED", False), (400, "ALREADY_COMPLETED", False),
     (404, "NOT_FOUND", False)],
)  # fmt: skip
def test_fal_confirms_a_cancel_only_in_the_queue(status: int, word: str, confirmed: bool) -> None:
    http = FakeHttp(reply(status, {"status": word}))
    assert run(adapter("fal").cancel(http, handle("flux/pro-1.1", "80e7"))) is confirmed
    assert (http.sent[0].method, http.sent[0].url) == ("PUT", f"{FAL}/cancel")


def test_fals_webhook_reveals_a_lost_request() -> None:
    made, lost = adapter("fal"), submission("flux/dev")
    assert made.adopt({"request_id": "80e7-x", "status": "OK"}, lost) == Accepted(provider_ref="80e7-x")
    for lie in ({}, {"request_id": "../../x"}, {"request_id": 7.5}, {"request_id": "a" * 101}):
        assert made.adopt(lie, lost) is None
