"""What a finished generation yields: outputs, follow-ups, cost."""

from __future__ import annotations

from typing import Any

import pytest

from common.providers.base import Action, NoVerdict, Output
from common.providers.midjourney_results import action_id
from tests.unit.providers.fakes import like, poll, reply

GRID = "https://cdn.discordapp.com/attachments/1/2/final.png?ex=1&is=2&hm=3"


def finished(**fields: Any) -> Any:
    task = {"id": "ref-1", "action": "IMAGINE", "status": "SUCCESS", "imageUrl": GRID, **fields}
    return poll("midjourney", "midjourney/imagine", reply(200, [task]), reply(404))  # no seed is told


def button(custom_id: str, label: str = "", emoji: str = "") -> dict[str, Any]:
    return {"customId": custom_id, "label": label, "emoji": emoji, "style": 2, "type": 2}


def test_a_grid_is_one_picture() -> None:
    verdict = finished(
        imageUrls=[{"url": "https://cdn.midjourney.com/x/0_0.png"}] * 4, width=2048, height=2048
    )
    assert verdict.outputs == (Output(kind="image", url=GRID, lives_s=86_400, width=2048, height=2048),)


def test_buttons_become_actions() -> None:
    verdict = finished(
        buttons=[
            button("MJ::JOB::upsample::1::8f", "U1"),
            button("MJ::JOB::variation::2::8f", "V2"),
            button("MJ::JOB::reroll::0::8f::SOLO", emoji="🔄"),
            button("MJ::JOB::upsample::1::8f", "U1"),
            button("MJ::Inpaint::1::8f::SOLO", "Vary (Region)"),
            button("MJ::BOOKMARK::8f", emoji="❤️"),
            button("", "Web"),
            7,
        ]
    )
    assert verdict.actions == (
        Action(id="upsample_1", label="U1", token="MJ::JOB::upsample::1::8f"),
        Action(id="variation_2", label="V2", token="MJ::JOB::variation::2::8f"),
        Action(id="reroll", label="🔄", token="MJ::JOB::reroll::0::8f::SOLO"),
        Action(id="vary_region", label="Vary (Region)", token="MJ::Inpaint::1::8f::SOLO"),
    )


def test_a_grid_without_buttons_can_be_changed() -> None:
    offered = {action.id: action.token for action in finished().actions}
    assert offered == {
        **{f"upsample_{n}": f"U{n}" for n in range(1, 5)},
        **{f"variation_{n}": f"V{n}" for n in range(1, 5)},
        "reroll": "R",
    }
    assert finished(action="UPSCALE").actions == ()


@pytest.mark.parametrize(
    ("custom_id", "label", "expected"),
    [
        ("MJ::JOB::upsample::4::8f", "U4", "upsample_4"),
        ("MJ::JOB::high_variation::1::8f::SOLO", "Vary (Strong)", "high_variation"),
        ("MJ::JOB::low_variation::1::8f::SOLO", "Vary (Subtle)", "low_variation"),
        ("MJ::JOB::upsample_v6r1_2x_subtle::1::8f::SOLO", "Upscale (Subtle)", "upsample_2x_subtle"),
        ("MJ::JOB::upsample_v7_2x_creative::1::8f::SOLO", "Upscale (Creative)", "upsample_2x_creative"),
        ("MJ::Outpaint::50::1::8f::SOLO", "Zoom Out 2x", "zoom_out_2x"),
        ("MJ::Outpaint::75::1::8f::SOLO", "Zoom Out 1.5x", "zoom_out_1_5x"),
        ("MJ::CustomZoom::8f", "Custom Zoom", "custom_zoom"),
        ("MJ::JOB::pan_left::1::8f::SOLO", "", "pan_left"),
        ("MJ::JOB::animate_high::1::8f::SOLO", "Animate (High motion)", "animate_high"),
        ("MJ::JOB::video_virtual_upscale::2::8f", "U2", "video_virtual_upscale_2"),
        ("something::else", "U3", "upsample_3"),
        ("something::else", "Make it Pop!", "make_it_pop"),
        ("something::else", "🔄", "something_else"),
        ("x" * 300, "", "x" * 64),
    ],
)
def test_ids_of_actions_are_stable(custom_id: str, label: str, expected: str) -> None:
    assert action_id(label, custom_id) == expected


def test_an_animation_is_a_video() -> None:
    links = [{"url": "https://x/1.mp4", "thumbnail": "https://x/1.png"}, {"url": "https://x/2.mp4"}]
    assert [(made.kind, made.url) for made in finished(videoUrls=links).outputs] == [
        ("video", "https://x/1.mp4"),
        ("video", "https://x/2.mp4"),
    ]
    assert [made.kind for made in finished(videoUrl="https://x/1.mp4").outputs] == ["video"]


def test_a_kling_video() -> None:
    result = {
        "videos": [{"id": "v", "url": "https://cdn.example/v.mp4", "watermark_url": "", "duration": "5.1"}]
    }
    task = {
        "task_id": "ref-1",
        "task_status": "succeed",
        "task_result": result,
        "final_unit_deduction": "3.5",
    }
    verdict = poll("kling", "kling/text-to-video", reply(200, {"code": 0, "data": task}))
    assert verdict.outputs == (
        Output(kind="video", url="https://cdn.example/v.mp4", lives_s=86_400, duration_s=5.1),
    )
    assert verdict.cost == "3.5"


def test_kling_images_come_in_their_order() -> None:
    images = [{"index": n, "url": f"https://cdn.example/{n}.png"} for n in (2, 0, 1)]
    task = {"task_id": "ref-1", "task_status": "succeed", "task_result": {"images": images}}
    verdict = poll("kling", "kling/image", reply(200, {"code": 0, "data": task}))
    assert [made.url for made in verdict.outputs] == [f"https://cdn.example/{n}.png" for n in range(3)]


@pytest.mark.parametrize(
    ("billing", "cost"),
    [([{"amount": "3"}], "3"), ([{"amount": "1.5"}, {"amount": "2"}], "3.5"), ([], None), ([{"amount": "NaN"}], None),
     ([{"amount": "1e999999"}], None), ([{}], None), (7, None)],
)  # fmt: skip
def test_klings_new_bill(billing: Any, cost: str | None) -> None:
    outputs = [
        {"type": "audio", "mp3_url": "https://x/a.mp3"},
        {"type": "video", "url": "https://x/v.mp4", "duration": "5"},
    ]
    task = {"id": "ref-1", "status": "succeeded", "outputs": outputs, "billing": billing}
    verdict = poll("kling", "kling/text-to-video", reply(200, {"code": 0, "data": [task]}), path="/tasks")
    assert verdict.cost == cost
    assert [(made.kind, made.duration_s) for made in verdict.outputs] == [("video", 5.0)]


def jimeng(model: str, **data: Any) -> Any:
    answer = {"code": 10000, "data": {"status": "done", **data}, "message": "Success"}
    return poll("jimeng", model, reply(200, answer))


def test_jimeng_links_live_differently_long() -> None:
    images = jimeng("jimeng/text-to-image", image_urls=["https://x/1.png", "https://x/2.png", None])
    assert [(made.url, made.lives_s) for made in images.outputs] == [
        ("https://x/1.png", 86_400),
        ("https://x/2.png", 86_400),
    ]
    video = jimeng("jimeng/text-to-video", video_url="https://x/1.mp4")
    assert video.outputs == (Output(kind="video", url="https://x/1.mp4", lives_s=3600),)


def test_jimeng_pictures_may_come_as_bytes() -> None:
    inline = jimeng("jimeng/text-to-image", image_urls=None, binary_data_base64=["aGVsbG8=", "", 7, "\ud800"])
    assert inline.outputs == (Output(kind="image", base64="aGVsbG8=", lives_s=86_400),)
    links = jimeng("jimeng/text-to-image", image_urls=["https://x/1.png"], binary_data_base64=["aGVsbG8="])
    assert [made.base64 for made in links.outputs] == [None]


def test_a_bfl_sample_dies_in_ten_minutes() -> None:
    answer = reply(200, {"id": "ref-1", "status": "Ready", "result": {"sample": "https://d.bfl.ai/1.png"}})
    verdict = poll("bfl", "flux/dev", answer)
    assert verdict.outputs == (Output(kind="image", url="https://d.bfl.ai/1.png", lives_s=600),)


def test_fal_pictures() -> None:
    images = [{"url": f"https://v3.fal.media/{n}.jpeg", "width": 8, "height": 6, "content_type": "image/jpeg"}
              for n in range(2)]  # fmt: skip
    verdict = poll("fal", "flux/schnell", reply(200, {"status": "COMPLETED"}), reply(200, {"images": images}))
    assert [(made.url, made.width, made.height, made.content_type) for made in verdict.outputs] == [
        (f"https://v3.fal.media/{n}.jpeg", 8, 6, "image/jpeg") for n in range(2)
    ]
    odd = poll("fal", "flux/schnell", reply(200, {"status": "COMPLETED"}),
               reply(200, {"images": [{"url": "data:image/png;base64,x"}, 7]}))  # fmt: skip
    like(odd, NoVerdict, gone=False)
