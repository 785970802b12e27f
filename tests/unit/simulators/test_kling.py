"""The simulated Kling, used by our real adapter: what the fact sheet lists, section 10, and all its paths."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from common.providers.base import (
    Accepted,
    Failed,
    Handle,
    Media,
    NotAccepted,
    NoVerdict,
    Rejected,
    Reply,
    Running,
    Succeeded,
    Trouble,
    Unknown,
)
from common.providers.kling import mint
from common.providers.registry import MODELS
from tests.infrastructure.children import wait_until
from tests.simulators.frame import Fault, Stage
from tests.simulators.kling import ERRORS, Kling, KlingTask, signature
from tests.simulators.kling_forms import LEGACY
from tests.simulators.media import MediaHost, png
from tests.simulators.pace import Pace
from tests.simulators.receiver import Receiver
from tests.unit.simulators.customer import Customer

VIDEO, IMAGE = "kling/text-to-video", "kling/image"
T2V, I2V, IMAGES = "/v1/videos/text2video", "/v1/videos/image2video", "/v1/images/generations"
NEW = "/text-to-video/kling-3.0"
PICTURE = base64.b64encode(png("sent", 320, 320)).decode()
SMALL = base64.b64encode(png("sent", 200, 200)).decode()
GENERATIONS = [pytest.param("kling-v2-6", id="legacy"), pytest.param("kling-3.0", id="new")]


class Shop:
    """The service with a customer of its own."""

    def __init__(self, server: Kling, customer: Customer) -> None:
        self.server, self.customer = server, customer

    def ask(self, method: str, path: str, body: Any = None, bearer: str | None = None) -> Reply:
        """A call with the API key, or with something else as the whole header."""
        header = f"Bearer {self.server.account.key}" if bearer is None else bearer
        return self.customer.ask(method, f"{self.server.url}{path}", body, {"Authorization": header})

    def get(self, path: str) -> Any:
        """The data of a good answer."""
        return good(self.ask("GET", path))

    def post(self, path: str, **body: Any) -> Any:
        """The data of a good answer."""
        return good(self.ask("POST", path, body))

    def refused(self, path: str, **body: Any) -> tuple[int, int]:
        """HTTP status and code."""
        reply = self.ask("POST", path, body)
        return reply.status, reply.object()["code"]

    def finish(self) -> None:
        """Let everything be over."""
        for task in self.server.generations.values():
            task.made_at -= 1000

    def film(self) -> str:
        """The id of a finished film."""
        task = self.post(T2V, prompt="first")["task_id"]
        self.finish()
        return str(self.get(f"{T2V}/{task}")["task_result"]["videos"][0]["id"])


def good(reply: Reply) -> Any:
    body = reply.object()
    assert (reply.status, body["code"], body["message"]) == (200, 0, "SUCCEED"), reply
    assert body["request_id"]
    return body["data"]


@pytest.fixture
def media() -> MediaHost:
    return MediaHost()


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def server(media: MediaHost, receiver: Receiver) -> Iterator[Kling]:
    server = Kling(media, Pace(0.02, 0.03))
    with Stage([media, server, receiver]):
        yield server


@pytest.fixture
def shop(server: Kling) -> Iterator[Shop]:
    with Customer("kling", server.url, {"api_key": server.account.key}) as customer:
        yield Shop(server, customer)


def pair(server: Kling) -> dict[str, str]:
    return {"access_key": server.account.access_key, "secret_key": server.account.secret_key}


# ---------------------------------------------------------------- by the adapter


def run_through(customer: Customer, server: Kling, media: MediaHost, version: str) -> None:
    """From a submit to the film, seen at every status."""
    prompt = "a paper boat [queue=100] [run=100]"
    accepted = customer.submit(VIDEO, prompt, model_name=version, mode="pro")
    assert isinstance(accepted, Accepted)
    (task,) = server.made(prompt)
    for age_s, status in ((50, "submitted"), (150, "processing")):
        task.made_at = time.time() - age_s
        assert task.status == status
        assert isinstance(customer.poll(VIDEO, accepted), Running)
    task.made_at -= 60
    verdict = customer.poll(VIDEO, accepted)
    assert isinstance(verdict, Succeeded)
    assert verdict.cost == f"{task.units:g}"
    (output,) = verdict.outputs
    assert (output.kind, output.duration_s) == ("video", 5.1)
    assert task.results == [output.url]
    assert (task.reference or "").startswith("att_")
    reply = customer.ask("GET", output.url or "")
    assert (reply.status, reply.headers["content-type"]) == (200, "video/mp4")
    assert reply.body[4:8] == b"ftyp"
    assert media.leaks == []


@pytest.mark.parametrize("version", GENERATIONS)
def test_from_submit_to_film_with_an_api_key(shop: Shop, media: MediaHost, version: str) -> None:
    run_through(shop.customer, shop.server, media, version)
    (task,) = shop.server.generations.values()
    assert task.status == {"kling-v2-6": "succeed", "kling-3.0": "succeeded"}[version]


def test_from_submit_to_film_with_a_token(server: Kling, media: MediaHost) -> None:
    with Customer("kling", server.url, pair(server)) as customer:
        run_through(customer, server, media, "kling-v2-6")
        assert all(call.headers["Authorization"].count(".") == 2 for call in server.calls)
        verdict = customer.submit(VIDEO, "x", model_name="kling-3.0")  # the new API wants a key
    assert isinstance(verdict, NotAccepted)
    assert verdict.trouble is Trouble.MODEL


def test_every_film_is_another(shop: Shop, media: MediaHost) -> None:
    contents = set()
    for _ in range(2):
        verdict, _ = shop.customer.made(VIDEO, "the same")
        assert isinstance(verdict, Succeeded)
        contents.add(media.content(verdict.outputs[0].url or ""))
    assert len(contents) == 2


def test_pictures(shop: Shop, media: MediaHost) -> None:
    verdict, _ = shop.customer.made(IMAGE, "a fox", n=3, aspect_ratio="1:1")
    assert isinstance(verdict, Succeeded)
    assert [output.kind for output in verdict.outputs] == ["image"] * 3
    assert verdict.cost == "0.3"
    contents = {media.content(output.url or "") for output in verdict.outputs}
    assert len(contents) == 3
    assert all(content[:4] == b"\x89PNG" for content in contents)


@pytest.mark.parametrize("version", GENERATIONS)
def test_many_are_looked_at_in_one_call(shop: Shop, version: str) -> None:
    shop.server.account.at_once = 10
    accepted = [shop.customer.submit(VIDEO, f"{number} [run=9]", model_name=version) for number in range(5)]
    shop.server.calls.clear()
    seen = shop.customer.poll_all(VIDEO, accepted)
    assert [type(seen[each.provider_ref]) for each in accepted] == [Running] * 5
    assert [call.path.partition("?")[0] for call in shop.server.calls] == [path_of(version)]


@pytest.mark.parametrize(
    ("cap", "calls"), [(5, [5]), (3, [2, 3, 5]), (2, [1, 2, 2, 3, 5]), (1, [1] * 5 + [2, 2, 3, 5])]
)
def test_a_batch_that_is_too_large_is_halved(shop: Shop, cap: int, calls: list[int]) -> None:
    shop.server.account.at_once = 10
    accepted = [
        shop.customer.submit(VIDEO, f"{number} [run=9]", model_name="kling-3.0") for number in range(5)
    ]
    shop.server.batch_cap = cap
    shop.server.calls.clear()
    seen = shop.customer.poll_all(VIDEO, accepted)
    assert [type(seen[each.provider_ref]) for each in accepted] == [Running] * 5
    assert sorted(_named(call.path) for call in shop.server.calls) == calls


def test_a_batch_of_which_nothing_is_taken_costs_a_bounded_number_of_calls(shop: Shop) -> None:
    shop.server.batch_cap = 0
    shop.server.calls.clear()
    known = [Accepted(provider_ref=str(number), memo={"path": "/tasks"}) for number in range(64)]
    seen = shop.customer.poll_all(VIDEO, known)
    assert all(isinstance(verdict, NoVerdict) and not verdict.gone for verdict in seen.values())
    assert len(seen) == 64
    assert len(shop.server.calls) == 1 + 2 + 4 + 8 + 64


def test_a_half_without_an_answer_spoils_no_other(shop: Shop) -> None:
    shop.server.account.at_once = 10
    accepted = [
        shop.customer.submit(VIDEO, f"{number} [run=9]", model_name="kling-3.0") for number in range(4)
    ]
    shop.server.batch_cap = 2
    shop.server.misbehave(Fault("drop_reply", f"GET /tasks?task_ids={accepted[2].provider_ref}"))
    seen = shop.customer.poll_all(VIDEO, accepted)
    verdicts = [type(seen[each.provider_ref]) for each in accepted]
    assert verdicts == [Running, Running, NoVerdict, NoVerdict]


def _named(path: str) -> int:
    """How many tasks a look names."""
    return path.count(",") + path.count("%2C") + 1


@pytest.mark.parametrize("version", GENERATIONS)
@pytest.mark.parametrize("kind", ["drop_reply", "garbage", "cut"])
def test_a_lost_submit_is_found_by_its_external_id(shop: Shop, version: str, kind: Any) -> None:
    assert_nobody(shop, version)
    shop.server.misbehave(Fault(kind, "POST /"))
    assert isinstance(shop.customer.submit(VIDEO, "lost", model_name=version), Unknown)
    (task,) = shop.server.made("lost")
    found = shop.customer.find(VIDEO, task.reference, "lost", model_name=version)
    assert isinstance(found, Accepted)
    assert found.provider_ref == task.id
    assert isinstance(shop.customer.follow(VIDEO, found)[0], Succeeded)


def assert_nobody(shop: Shop, version: str) -> None:
    for shop.server.unknown_is_error in (True, False):
        nobody = shop.customer.find(VIDEO, "att_nobody", "x", model_name=version)
        assert isinstance(nobody, NoVerdict)
        assert nobody.gone
        gone = shop.customer.poll(VIDEO, Accepted(provider_ref="1", memo={"path": path_of(version)}))
        assert isinstance(gone, NoVerdict)
        assert gone.gone


def path_of(version: str) -> str:
    return T2V if version.startswith("kling-v") else "/tasks"


@pytest.mark.parametrize("version", GENERATIONS)
def test_forbidden_prompts_and_failures(shop: Shop, version: str) -> None:
    refused = shop.customer.submit(VIDEO, "[moderate-input] x", model_name=version)
    assert isinstance(refused, Rejected)
    assert refused.code == "content_moderated"
    before = shop.server.account.balance
    for directive, code in (("moderate-output", "content_moderated"), ("fail", "provider_failed")):
        verdict, _ = shop.customer.made(VIDEO, f"[{directive}] x", model_name=version)
        assert isinstance(verdict, Failed)
        assert verdict.code == code
    assert shop.server.account.balance == before
    assert len(shop.server.generations) == 2


def test_a_dead_link_and_one_that_dies(shop: Shop) -> None:
    verdict, _ = shop.customer.made(VIDEO, "[expire] x")
    assert isinstance(verdict, Succeeded)
    assert shop.customer.ask("GET", verdict.outputs[0].url or "").status == 403
    shop.server.url_life_s = 0.3
    verdict, _ = shop.customer.made(VIDEO, "x")
    assert isinstance(verdict, Succeeded)
    url = verdict.outputs[0].url or ""
    wait_until(lambda: shop.customer.ask("GET", url).status == 403)


# ---------------------------------------------------------------- credentials


def test_who_may_come_in(shop: Shop) -> None:
    server, now = shop.server, time.time()
    own = mint(server.account.access_key, server.account.secret_key, now)
    said = {
        "nothing": shop.ask("GET", T2V, bearer=""),
        "an empty one": shop.ask("GET", T2V, bearer="Bearer "),
        "another scheme": shop.ask("GET", T2V, bearer=f"Basic {server.account.key}"),
        "a wrong key": shop.ask("GET", T2V, bearer="Bearer wrong"),
        "a stranger's token": shop.ask("GET", T2V, bearer=f"Bearer {mint('ak', 'sk', now)}"),
        "a wrong secret": shop.ask("GET", T2V, bearer=f"Bearer {mint(server.account.access_key, 'sk', now)}"),
        "a changed token": shop.ask("GET", T2V, bearer=f"Bearer {own[:-8]}AAAAAAAA"),
        "another algorithm": shop.ask("GET", T2V, bearer=f"Bearer {token(server, alg='none')}"),
        "no end": shop.ask("GET", T2V, bearer=f"Bearer {token(server, claims={'nbf': 1})}"),
        "too early": shop.ask("GET", T2V, bearer=f"Bearer {minted(server, now + 60)}"),
        "too late": shop.ask("GET", T2V, bearer=f"Bearer {minted(server, now - 1801)}"),
    }
    assert {reply.status for reply in said.values()} == {401}
    assert {name: reply.object()["code"] for name, reply in said.items()} == {
        "nothing": 1001,
        "an empty one": 1001,
        "another scheme": 1000,
        "a wrong key": 1002,
        "a stranger's token": 1002,
        "a wrong secret": 1002,
        "a changed token": 1002,
        "another algorithm": 1000,
        "no end": 1000,
        "too early": 1003,
        "too late": 1004,
    }
    assert shop.ask("GET", T2V, bearer=f"Bearer {own}").status == 200
    assert shop.ask("GET", "/tasks?task_ids=1", bearer=f"Bearer {own}").object()["code"] == 1002
    assert shop.ask("POST", NEW, {"prompt": "x"}, f"Bearer {own}").object()["code"] == 1002
    assert server.generations == {}


def minted(server: Kling, now: float) -> str:
    return mint(server.account.access_key, server.account.secret_key, now)


def token(server: Kling, alg: str = "HS256", claims: Mapping[str, Any] | None = None) -> str:
    """A rightly signed token with another header, or with these claims only."""
    claims = {"iss": server.account.access_key, **(claims or {"exp": 2**31, "nbf": 1})}
    parts = [json.dumps(part).encode() for part in ({"alg": alg, "typ": "JWT"}, claims)]
    head = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    signed = hmac.new(server.account.secret_key.encode(), head.encode(), hashlib.sha256).digest()
    return f"{head}.{base64.urlsafe_b64encode(signed).rstrip(b'=').decode()}"


@pytest.mark.parametrize("secrets", [{"api_key": "wrong"}, {"access_key": "ak", "secret_key": "sk"}])
def test_wrong_credentials_are_the_accounts_trouble(server: Kling, secrets: dict[str, str]) -> None:
    with Customer("kling", server.url, secrets) as stranger:
        verdict = stranger.submit(VIDEO, "x")
    assert isinstance(verdict, NotAccepted)
    assert verdict.trouble is Trouble.CREDENTIALS


# ---------------------------------------------------------------- what is refused

CAMERA = {"type": "simple", "config": {"pan": 1}}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (T2V, {}),
        (T2V, {"prompt": ""}),
        (T2V, {"prompt": "x" * 2501}),
        (T2V, {"prompt": "x", "model_name": "kling-v9"}),
        (T2V, {"prompt": "x", "duration": 7}),
        (T2V, {"prompt": "x", "duration": "7"}),
        (T2V, {"prompt": "x", "duration": "16", "model_name": "kling-v3"}),
        (T2V, {"prompt": "x", "duration": 5.5}),
        (T2V, {"prompt": "x", "aspect_ratio": "2:1"}),
        (T2V, {"prompt": "x", "mode": "4k"}),
        (T2V, {"prompt": "x", "sound": "on"}),
        (T2V, {"prompt": "x", "cfg_scale": 2}),
        (T2V, {"prompt": "x", "cfg_scale": 0.5, "model_name": "kling-v2-6"}),
        (T2V, {"prompt": "x", "camera_control": {"type": "simple", "config": {"pan": 1, "tilt": 1}}}),
        (T2V, {"prompt": "x", "camera_control": {"type": "simple", "config": {"pan": 11}}}),
        (T2V, {"prompt": "x", "camera_control": {"type": "simple"}}),
        (T2V, {"prompt": "x", "camera_control": {"type": "down_back", "config": {"pan": 1}}}),
        (I2V, {"prompt": "x"}),
        (I2V, {"image": f"data:image/png;base64,{PICTURE}"}),
        (I2V, {"image": SMALL}),
        (I2V, {"image": "hello"}),
        (I2V, {"image": PICTURE, "image_tail": PICTURE, "camera_control": CAMERA}),
        (I2V, {"image": PICTURE, "image_tail": PICTURE, "static_mask": "https://x/m.png"}),
        (IMAGES, {"prompt": "x", "n": 10}),
        (IMAGES, {"prompt": "x", "resolution": "8k"}),
        (IMAGES, {"prompt": "x", "image": PICTURE, "negative_prompt": "y"}),
        (I2V, {"image": PICTURE, "static_mask": SMALL}),
        (I2V, {"image": PICTURE, "dynamic_masks": [{"mask": SMALL, "trajectories": [{"x": 1, "y": 2}] * 2}]}),
        (I2V, {"image": PICTURE, "multi_shot": True, "shot_type": "intelligence"}),
        (I2V, {"image": PICTURE, "model_name": "kling-v3", "multi_shot": True}),
        (I2V, {"image": PICTURE, "model_name": "kling-v3", "multi_shot": True, "shot_type": "customize"}),
        (T2V, {"prompt": "x", "model_name": "kling-v3", "shot_type": "intelligence"}),
        (
            T2V,
            {
                "prompt": "x",
                "model_name": "kling-v3",
                "multi_shot": True,
                "shot_type": "customize",
                "multi_prompt": [{"index": 1, "prompt": "y", "duration": "4"}],
            },
        ),
        (I2V, {"image": PICTURE, "model_name": "kling-v3", "voice_list": [{"voice_id": "1"}]}),
        ("/v1/images/editing/expand", {"image": PICTURE}),
        ("/v1/images/editing/expand", {"image": PICTURE, "up_expansion_ratio": 2, "left_expansion_ratio": 1}),
        (
            "/v1/images/multi-image2image",
            {"subject_image_list": [{"subject_image": PICTURE}], "style_image": SMALL},
        ),
        ("/v1/videos/multi-image2video", {"prompt": "x", "image_list": []}),
        ("/v1/videos/lip-sync", {"input": {"mode": "text2video", "video_url": "https://x/v.mp4"}}),
        ("/v1/videos/effects", {"effect_scene": "hug", "input": {}}),
        ("/v1/images/kolors-virtual-try-on", {"human_image": PICTURE}),
        (NEW, {}),
        (NEW, {"prompt": "x", "settings": {"duration": "5"}}),
        (NEW, {"prompt": "x", "settings": {"duration": 16}}),
        ("/text-to-video/kling-2.6", {"prompt": "x", "settings": {"duration": 7}}),
        ("/text-to-video/kling-2.6", {"prompt": "x", "settings": {"audio": "native"}}),
        ("/text-to-video/kling-2.6", {"prompt": "x", "settings": {"resolution": "4k"}}),
        ("/text-to-video/kling-3.0-turbo", {"prompt": "x" * 2501}),
        ("/text-to-video/kling-3.0-turbo", {"prompt": "x", "settings": {"multi_shot": True}}),
        ("/image-to-video/kling-3.0", {"contents": [{"type": "prompt", "text": "x"}]}),
        (
            "/image-to-video/kling-3.0-turbo",
            {"contents": [{"type": "first_frame", "url": PICTURE}, {"type": "last_frame", "url": PICTURE}]},
        ),
    ],
)
def test_invalid_parameters(shop: Shop, path: str, body: dict[str, Any]) -> None:
    assert shop.refused(path, **body) == (400, 1201)
    assert shop.server.generations == {}


def test_what_is_no_request_and_what_is_nowhere(shop: Shop) -> None:
    reply = shop.customer.ask(
        "POST", f"{shop.server.url}{T2V}", None, {"Authorization": f"Bearer {shop.server.account.key}"}
    )
    assert (reply.status, reply.object()["code"]) == (400, 1200)
    assert shop.refused("/text-to-video/kling-9") == (404, 1203)
    assert shop.ask("DELETE", T2V).object()["code"] == 1202
    assert shop.ask("GET", f"{T2V}/1").object()["code"] == 1203
    assert shop.refused("/v1/videos/video-extend", video_id="v-nobody") == (404, 1203)
    for query in ("pageNum=0", "pageSize=501", "pageSize=x"):
        assert shop.ask("GET", f"{T2V}?{query}").object()["code"] == 1201
    for query in ("", "?task_ids=", "?task_ids=1&external_task_ids=2"):
        assert shop.ask("GET", f"/tasks{query}").object()["code"] == 1201


def test_the_old_name_of_model_name_is_ignored(shop: Shop) -> None:
    task = shop.post(T2V, prompt="x", model="kling-v2-6")["task_id"]
    assert "model_name" not in shop.server.generations[task].body
    assert shop.refused(T2V, prompt="x", model="kling-v2-6", sound="on") == (400, 1201)  # as V1 does


def test_a_number_is_taken_as_a_duration_where_it_is_a_possible_one(shop: Shop) -> None:
    task = shop.post(T2V, prompt="x", duration=10)["task_id"]
    assert shop.server.generations[task].video_s == 10


HTTP = {
    401: (1000, 1001, 1002, 1003, 1004),
    429: (1100, 1101, 1102, 1302, 1303, 1304),
    403: (1103,),
    400: (1200, 1201, 1300, 1301),
    404: (1202, 1203),
    500: (5000,),
    503: (5001,),
    504: (5002,),
}


def test_the_sheets_codes_are_all_there() -> None:
    assert {code: status for code, (status, _) in ERRORS.items()} == {
        code: status for status, codes in HTTP.items() for code in codes
    }


@pytest.mark.parametrize("code", ERRORS)
def test_every_code_also_with_status_200(shop: Shop, code: int) -> None:
    shop.server.account.refusing = code
    reply = shop.ask("POST", T2V, {"prompt": "x"})
    assert reply.status == ERRORS[code][0]
    assert (reply.object()["code"], "data" in reply.object()) == (code, False)
    shop.server.always_200 = True
    reply = shop.ask("POST", T2V, {"prompt": "x"})
    assert (reply.status, reply.object()["code"]) == (200, code)
    verdict = shop.customer.submit(VIDEO, "x")
    assert not isinstance(verdict, Accepted)
    assert f"(code {code})" in verdict.message
    assert isinstance(verdict, Unknown) == (code >= 5000)
    assert shop.server.generations == {}


# ---------------------------------------------------------------- limits


def trouble(verdict: Any) -> Trouble:
    assert isinstance(verdict, NotAccepted), verdict
    return verdict.trouble


def test_five_places_and_a_picture_takes_one_each(shop: Shop) -> None:
    assert isinstance(shop.customer.submit(VIDEO, "[run=9] x"), Accepted)
    verdict = shop.customer.submit(IMAGE, "[run=9] y", n=5)
    assert trouble(verdict) is Trouble.BUSY
    assert "(code 1303)" in verdict.message
    assert isinstance(shop.customer.submit(IMAGE, "[run=9] y", n=4), Accepted)
    assert trouble(shop.customer.submit(VIDEO, "x", model_name="kling-3.0")) is Trouble.BUSY
    assert shop.refused(T2V, prompt="x") == (429, 1303)
    assert len(shop.server.generations) == 2
    shop.finish()
    assert isinstance(shop.customer.submit(IMAGE, "y", n=5), Accepted)


def test_an_account_that_is_used_up(shop: Shop) -> None:
    shop.server.account.balance = 1.4  # five seconds cost 1.5
    verdict = shop.customer.submit(VIDEO, "x")
    assert trouble(verdict) is Trouble.BALANCE
    assert shop.refused(T2V, prompt="x") == (429, 1102)
    shop.server.account.postpaid = True
    assert shop.refused(T2V, prompt="x") == (429, 1101)
    assert trouble(shop.customer.submit(VIDEO, "x")) is Trouble.BALANCE
    assert shop.server.generations == {}
    shop.server.account.balance = 1.5
    assert isinstance(shop.customer.submit(VIDEO, "x"), Accepted)
    assert shop.server.account.balance == 0


def test_too_many_in_a_second(shop: Shop) -> None:
    shop.server.account.submits, shop.server.account.window_s = 2, 60
    first, second, third = (shop.customer.submit(VIDEO, "x") for _ in range(3))
    assert isinstance(first, Accepted)
    assert isinstance(second, Accepted)
    assert (trouble(third), third.retry_after_s) == (Trouble.BUSY, 1.0)
    assert shop.refused(T2V, prompt="x") == (429, 1302)
    assert shop.get(T2V)  # looking is free
    shop.server.account.window_s = 0
    assert isinstance(shop.customer.submit(VIDEO, "x"), Accepted)


# ---------------------------------------------------------------- external ids


@pytest.mark.parametrize("path", [T2V, NEW])
def test_a_used_external_id(shop: Shop, path: str) -> None:
    known = {"options": {"external_task_id": "mine"}} if path == NEW else {"external_task_id": "mine"}
    first = shop.post(path, prompt="x", **known)
    again = shop.post(path, prompt="x", **known)
    assert first != again
    assert [task.reference for task in shop.server.made("x")] == ["mine"] * 2
    shop.server.duplicates = "refused"
    assert shop.refused(path, prompt="x", **known) == (400, 1201)
    assert len(shop.server.generations) == 2


def test_both_styles_find_by_either_id(shop: Shop) -> None:
    legacy = shop.post(T2V, prompt="x", external_task_id="old")
    new = shop.post(NEW, prompt="y", options={"external_task_id": "new"})
    assert legacy["task_info"] == {"external_task_id": "old"}
    assert new["external_id"] == "new"
    for known in (legacy["task_id"], "old"):
        assert shop.get(f"{T2V}/{known}")["task_id"] == legacy["task_id"]
    for known in (legacy["task_id"], "old"):
        assert shop.ask("GET", f"{I2V}/{known}").object()["code"] == 1203  # another path
    assert [task["id"] for task in shop.get(f"/tasks?task_ids={new['id']},1,{legacy['task_id']}")] == [
        new["id"]
    ]
    assert [task["id"] for task in shop.get("/tasks?external_task_ids=new,old")] == [new["id"]]


# ---------------------------------------------------------------- shapes


def test_the_legacy_shapes(shop: Shop) -> None:
    watermark = {"enabled": True}
    made = shop.post(T2V, prompt="x", external_task_id="mine", watermark_info=watermark)
    assert made.keys() == {"task_id", "task_status", "task_info", "created_at", "updated_at"}
    assert made["task_status"] == "submitted"
    assert made["created_at"] == made["updated_at"] == pytest.approx(1000 * time.time(), abs=5000)
    shop.finish()
    task = shop.get(f"{T2V}/{made['task_id']}")
    (film,) = task.pop("task_result")["videos"]
    assert (film["duration"], film["watermark_url"]) == ("5.1", film["url"])
    assert task.pop("updated_at") > task.pop("created_at")
    assert task == {
        "task_id": made["task_id"],
        "task_status": "succeed",
        "task_status_msg": "",
        "task_info": {"external_task_id": "mine"},
        "final_unit_deduction": "1.5",
        "final_balance_deduction": {"quota": "0", "list_price": "0"},
        "watermark_info": watermark,
    }


def test_the_new_shapes(shop: Shop) -> None:
    made = shop.post(NEW, prompt="x", options={"external_task_id": "mine"}, settings={"duration": 3})
    assert made.keys() == {"id", "status", "create_time", "update_time", "external_id"}
    (task,) = shop.get(f"/tasks?task_ids={made['id']}")
    assert (task["status"], task["outputs"], task["billing"]) == ("submitted", [], [])
    shop.finish()
    (task,) = shop.get(f"/tasks?task_ids={made['id']}")
    (film,) = task["outputs"]
    assert (task["status"], task["message"], task["external_id"]) == ("succeeded", "", "mine")
    assert (film["type"], film["duration"], film["watermark_url"]) == ("video", "3.1", "")
    (bill,) = task["billing"]
    assert bill == {"charge_type": "unit", "package_type": "video", "amount": "1.8", "list_price": "0"}


def test_pages_of_the_legacy_api(shop: Shop) -> None:
    shop.server.account.at_once = 100
    made = [shop.post(T2V, prompt=f"{number}")["task_id"] for number in range(35)]
    shop.post(IMAGES, prompt="another path")
    newest = made[::-1]
    ids = [[task["task_id"] for task in shop.get(f"{T2V}{query}")]
           for query in ("", "?pageNum=2", "?pageNum=3", "?pageNum=2&pageSize=10")]  # fmt: skip
    assert ids == [newest[:30], newest[30:], [], newest[10:20]]


def test_the_list_of_the_new_api(shop: Shop) -> None:
    shop.server.account.at_once = 100
    made = [shop.post(NEW, prompt=f"{number}")["id"] for number in range(5)]
    shop.finish()
    made.append(shop.post(NEW, prompt="[run=9] x")["id"])
    newest = made[::-1]
    first = shop.post("/tasks", limit=4)
    assert [task["id"] for task in first["result"]] == newest[:4]
    assert (first["count"], first["has_more"]) == (4, True)
    rest = shop.post("/tasks", limit=4, cursor=first["next_cursor"])
    assert [task["id"] for task in rest["result"]] == newest[4:]
    assert (rest["has_more"], rest["next_cursor"]) == (False, "")
    done = shop.post("/tasks", filters=[{"key": "status", "values": ["succeeded"]}])
    assert [task["id"] for task in done["result"]] == newest[1:]
    assert shop.post("/tasks", filters=[{"key": "product_type", "values": ["image"]}])["result"] == []
    assert shop.post("/tasks", end_time=1)["result"] == []
    assert shop.refused("/tasks", limit=501) == (400, 1201)
    assert shop.refused("/tasks", filters=[{"key": "colour", "values": []}]) == (400, 1201)


def test_what_is_left_of_the_pack(shop: Shop) -> None:
    shop.server.account.balance = 7.5
    (pack,) = shop.get("/account/costs?start_time=1&end_time=2")["resource_pack_subscribe_infos"]
    assert (pack["remaining_quantity"], pack["status"]) == (7.5, "online")
    assert shop.ask("GET", "/account/costs").object()["code"] == 1201


# ---------------------------------------------------------------- the other paths


def bodies(film: str) -> dict[str, dict[str, Any]]:
    """A good request for every legacy path."""
    return {
        T2V: {"prompt": "x", "model_name": "kling-v3", "duration": "3", "sound": "on", "mode": "4k"},
        I2V: {"image": PICTURE, "image_tail": "https://example.com/b.png", "prompt": "x"},
        "/v1/videos/multi-image2video": {"prompt": "x", "image_list": [{"image": PICTURE}] * 2},
        "/v1/videos/video-extend": {"video_id": film, "prompt": "x"},
        "/v1/videos/lip-sync": {
            "input": {"video_id": film, "mode": "text2video", "text": "hello", "voice_id": "genshin_vindi2"}
        },
        "/v1/videos/effects": {"effect_scene": "hug", "input": {"images": [PICTURE, PICTURE]}},
        IMAGES: {"prompt": "x", "image": PICTURE, "image_reference": "face"},
        "/v1/images/multi-image2image": {"subject_image_list": [{"subject_image": PICTURE}]},
        "/v1/images/editing/expand": {"image": PICTURE, "up_expansion_ratio": 0.1},
        "/v1/images/kolors-virtual-try-on": {"human_image": PICTURE, "cloth_image": PICTURE},
    }


@pytest.mark.parametrize("path", LEGACY)
def test_every_path_has_the_same_envelope(shop: Shop, media: MediaHost, path: str) -> None:
    film = shop.film()
    made = shop.post(path, external_task_id="mine", **bodies(film)[path])
    assert shop.get(f"{path}/mine")["task_status"] in ("submitted", "processing")
    shop.finish()
    task = shop.get(f"{path}/{made['task_id']}")
    assert task["task_status"] == "succeed"
    kind = "videos" if path.startswith("/v1/videos") else "images"
    (result,) = task["task_result"][kind]
    start = media.content(result["url"])[:8]
    assert start[4:] == b"ftyp" if kind == "videos" else start[:4] == b"\x89PNG"
    if path.endswith("video-extend"):
        assert task["task_info"]["parent_video"] == {"id": film}


PICTURES = {"upl_a": Media(base64=PICTURE, content_type="image/png")}
URLS = {"https://x/v.mp4": Media(url="https://x/v.mp4"), "https://x/a.mp3": Media(url="https://x/a.mp3")}
SPOKEN = {"text": "hello", "voice_id": "v"}
LINE = [{"x": 1, "y": 2}, {"x": 3, "y": 4}]
V3 = {"model_name": "kling-v3"}
CUT = {**V3, "multi_shot": True, "shot_type": "customize",
       "multi_prompt": [{"prompt": "wakes", "duration_s": 2}, {"prompt": "runs", "duration_s": 3}]}  # fmt: skip
SIDES = {f"{side}_expansion_ratio": 0.2 for side in ("up", "down", "left", "right")}
EVERY = [
    ("image-to-video", {"image": "upl_a", "tail_image": "upl_a"}),
    ("image-to-video", {"image": "upl_a", "camera_control": CAMERA, "model_name": "kling-v1"}),
    ("image-to-video", {"image": "upl_a", "mask": "upl_a", "model_name": "kling-v1",
                        "dynamic_masks": [{"mask": "upl_a", "trajectories": LINE}]}),
    ("image-to-video", {"tail_image": "upl_a"}),
    ("image-to-video", {"image": "upl_a", **CUT, "sound": "on", "voice_list": [{"voice_id": "82"}]}),
    ("text-to-video", CUT),
    ("text-to-video", {**V3, "multi_shot": True, "shot_type": "intelligence"}),
    ("image-to-video", {"image": "upl_a", "tail_image": "upl_a", "model_name": "kling-3.0", "mode": "4k"}),
    ("image-to-video", {"image": "upl_a", "model_name": "kling-3.0-turbo", "duration_s": 7}),
    ("multi-image-to-video", {"images": ["upl_a", "upl_a"]}),
    ("extend", {}),
    ("lip-sync", SPOKEN),
    ("lip-sync", {"video": "https://x/v.mp4", "audio": "https://x/a.mp3"}),
    ("effects", {"effect_scene": "squish", "images": ["upl_a"]}),
    ("effects", {"effect_scene": "hug", "images": ["upl_a"] * 2, "model_name": "kling-v1-6", "mode": "pro"}),
    ("image", {"image": "upl_a", "image_reference": "subject", "image_fidelity": 0.3, "n": 2}),
    ("image-expand", {"image": "upl_a", **SIDES, "n": 2}),
    ("multi-image-to-image", {"images": ["upl_a"], "scene_image": "upl_a", "style_image": "upl_a", "n": 2}),
    ("virtual-try-on", {"image": "upl_a", "cloth_image": "upl_a"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given"), EVERY)
def test_every_model_by_the_adapter(shop: Shop, name: str, given: dict[str, Any]) -> None:
    model, customer, prompt = f"kling/{name}", shop.customer, f"{name} it moves"
    parent = None
    if MODELS[model].follows and "video" not in given:
        before = customer.submit(VIDEO, "the first film")
        shop.finish()
        told = customer.poll(VIDEO, before)
        assert isinstance(told, Succeeded)
        parent = Handle(model=VIDEO, reference="att_p", provider_ref=before.provider_ref,
                        memo={**before.memo, **told.memo})  # fmt: skip
    accepted = customer.submit(model, prompt, parent=parent, media={**PICTURES, **URLS}, **given)
    assert isinstance(accepted, Accepted), accepted
    task = shop.server.generations[accepted.provider_ref]
    assert accepted.memo["path"] == task.path
    assert (task.parent is None) == (parent is None)
    found = customer.find(model, task.reference, **given)
    assert isinstance(found, Accepted)
    assert (found.provider_ref, found.memo) == (accepted.provider_ref, accepted.memo)
    shop.finish()
    verdict = customer.poll(model, accepted)
    assert isinstance(verdict, Succeeded)
    assert [output.kind for output in verdict.outputs] == [MODELS[model].kind] * given.get("n", 1)
    assert verdict.cost == f"{task.units:g}"
    assert ("video_id" in verdict.memo) == (MODELS[model].kind == "video")


def test_an_extended_film_can_be_extended_again(shop: Shop) -> None:
    film = Handle(model=VIDEO, reference="att_p", provider_ref="1", memo={"video_id": shop.film()})
    for _ in range(2):
        accepted = shop.customer.submit("kling/extend", "and on", parent=film)
        shop.finish()
        told = shop.customer.poll("kling/extend", accepted)
        assert isinstance(told, Succeeded)
        film = Handle(model="kling/extend", reference="att_e", provider_ref="2", memo=told.memo)
    stranger = Handle(model=VIDEO, reference="att_p", provider_ref="3", memo={"video_id": "v-nobody"})
    refused = shop.customer.submit("kling/extend", "and on", parent=stranger)
    assert isinstance(refused, Rejected)
    assert refused.code == "invalid_input"


def test_new_films_from_pictures(shop: Shop) -> None:
    contents = [
        {"type": "prompt", "text": "it moves"},
        {"type": "first_frame", "url": PICTURE},
        {"type": "last_frame", "url": "https://example.com/b.png"},
    ]
    made = shop.post("/image-to-video/kling-3.0", contents=contents)
    assert shop.server.generations[made["id"]].prompt == "it moves"


# ---------------------------------------------------------------- callbacks


def test_golden_vector_of_the_webhook_signature() -> None:
    body = (
        b'{"id":"1234567890","status":"succeeded","message":"","create_time":1781080778802,'
        b'"update_time":1781080794151}'
    )
    secret = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
    assert (
        signature(secret, "9876543210", "1781080794", body)
        == "v1,UsKlJP00XoQyOn410NM9xv34sP+Gl0jnOO9Lcpr7NJ4="
    )


@pytest.mark.parametrize("version", GENERATIONS)
def test_it_calls_back_at_every_status(shop: Shop, receiver: Receiver, version: str) -> None:
    prompt = "[queue=0.1] [run=0.1] x"
    accepted = shop.customer.submit(VIDEO, prompt, model_name=version, callback_url=f"{receiver.url}/hook")
    wait_until(lambda: len(receiver.calls) == 3)
    bodies = [call.json() for call in receiver.calls]
    statuses = [body.get("task_status") or body.get("status") for body in bodies]
    assert statuses == ["submitted", "processing", shop.server.generations[accepted.provider_ref].status]
    assert all("code" not in body and "data" not in body for body in bodies)
    assert {body.get("task_id") or body.get("id") for body in bodies} == {accepted.provider_ref}
    assert bodies[-1].get("final_unit_deduction") or bodies[-1]["billing"]
    assert not any("webhook-signature" in call.headers for call in receiver.calls)


def test_callbacks_are_signed_where_there_is_a_secret_and_may_come_twice(
    shop: Shop, receiver: Receiver
) -> None:
    secret = f"whsec_{base64.b64encode(b'a secret of some length').decode()}"
    shop.server.account.webhook_secret, shop.server.repeats = secret, 2
    shop.customer.submit(VIDEO, "x", callback_url=f"{receiver.url}/hook")
    wait_until(lambda: len(receiver.calls) == 6)
    for call in receiver.calls:
        signed = call.headers["webhook-signature"]
        assert signed == signature(
            secret, call.headers["webhook-id"], call.headers["webhook-timestamp"], call.body
        )
        assert abs(int(call.headers["webhook-timestamp"]) - time.time()) < 60
    ids = [call.headers["webhook-id"] for call in receiver.calls]
    assert ids[0::2] == ids[1::2]
    assert len(set(ids)) == 3


def test_a_callback_that_fails_is_sent_once(shop: Shop, receiver: Receiver) -> None:
    receiver.misbehave(Fault("answer", times=100, status=500))
    shop.customer.submit(VIDEO, "x", callback_url=f"{receiver.url}/deaf")
    (task,) = shop.server.made("x")
    assert isinstance(task, KlingTask)
    wait_until(lambda: len(receiver.calls) == 3)
    assert task.hooked == 3
