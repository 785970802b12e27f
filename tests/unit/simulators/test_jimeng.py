"""The simulated Jimeng, used by our real adapter: what the fact sheet lists as its checklist, and its products."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pytest
from multidict import CIMultiDict
from PIL import Image

from common.providers.base import (
    Accepted,
    Failed,
    NotAccepted,
    NoVerdict,
    Rejected,
    Reply,
    Running,
    Succeeded,
    Trouble,
    Unknown,
)
from common.providers.jimeng_signing import sign
from tests.infrastructure.children import wait_until
from tests.simulators.frame import Fault, Stage
from tests.simulators.jimeng import CODES, GATEWAY, QUERY, SUBMIT, VERSION, Jimeng, check_signature
from tests.simulators.media import MediaHost, png
from tests.simulators.pace import Pace
from tests.simulators.receiver import Receiver
from tests.unit.simulators.customer import Customer

IMAGE, VIDEO = "jimeng/text-to-image", "jimeng/text-to-video"
V40 = "jimeng_t2i_v40"
PICTURE = base64.b64encode(png("sent", 400, 400)).decode()
SMALL = base64.b64encode(png("sent", 300, 300)).decode()
NARROW = base64.b64encode(png("sent", 1300, 400)).decode()
URLS = json.dumps({"return_url": True})


class Shop:
    """The service with a customer of its own."""

    def __init__(self, server: Jimeng, customer: Customer) -> None:
        self.server, self.customer = server, customer

    def ask(self, action: str, body: Any, *, url: str = "", **signing: Any) -> Reply:
        """A signed call."""
        url = url or f"{self.server.url}/?Action={action}&Version={VERSION}"
        account = self.server.account
        keys = {
            "access_key": account.key,
            "secret_key": account.secret_key,
            "at": datetime.now(UTC),
            **signing,
        }
        content = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
        return self.customer.ask("POST", url, body, sign("POST", url, content, **keys))

    def submit(self, **body: Any) -> str:
        """The id of an accepted task."""
        reply = self.ask(SUBMIT, {"req_key": V40, "prompt": "x", "force_single": True, **body})
        assert (reply.status, reply.object()["code"], reply.object()["status"]) == (200, 10000, 10000), reply
        return str(reply.object()["data"]["task_id"])

    def refused(self, **body: Any) -> tuple[int, int]:
        """HTTP status and code of a submit."""
        reply = self.ask(SUBMIT, body)
        assert reply.object()["data"] is None
        return reply.status, reply.object()["code"]

    def look(self, task_id: str, req_key: str = V40, req_json: Any = URLS) -> Reply:
        asked = {"req_key": req_key, "task_id": task_id}
        return self.ask(QUERY, asked if req_json is None else {**asked, "req_json": req_json})

    def data(self, task_id: str, req_key: str = V40, req_json: Any = URLS) -> dict[str, Any]:
        """The data of a good look."""
        reply = self.look(task_id, req_key, req_json)
        assert (reply.status, reply.object()["code"]) == (200, 10000), reply
        found: dict[str, Any] = reply.object()["data"]
        return found

    def finish(self) -> None:
        """Let everything be over."""
        for task in self.server.generations.values():
            task.made_at -= 100


@pytest.fixture
def media() -> MediaHost:
    return MediaHost()


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def server(media: MediaHost, receiver: Receiver) -> Iterator[Jimeng]:
    server = Jimeng(media, Pace(0.02, 0.03))
    with Stage([media, server, receiver]):
        yield server


@pytest.fixture
def shop(server: Jimeng) -> Iterator[Shop]:
    secrets = {"access_key": server.account.key, "secret_key": server.account.secret_key}
    with Customer("jimeng", server.url, secrets) as customer:
        yield Shop(server, customer)


# ---------------------------------------------------------------- by the adapter


def test_from_submit_to_picture(shop: Shop, media: MediaHost) -> None:
    prompt = "a crane, 水墨 [queue=100] [run=100]"
    accepted = shop.customer.submit(IMAGE, prompt, width=1024, height=1024)
    assert isinstance(accepted, Accepted)
    (task,) = shop.server.made(prompt)
    assert len(task.id) == 19
    for age_s, status in ((50, "in_queue"), (150, "generating")):
        task.made_at = time.time() - age_s
        assert shop.data(task.id)["status"] == status
        assert isinstance(shop.customer.poll(IMAGE, accepted), Running)
    task.made_at -= 60
    verdict = shop.customer.poll(IMAGE, accepted)
    assert isinstance(verdict, Succeeded)
    (output,) = verdict.outputs
    assert task.results == [output.url]
    reply = shop.customer.ask("GET", output.url or "")
    assert (reply.status, reply.headers["content-type"]) == (200, "image/png")
    with Image.open(BytesIO(reply.body)) as image:
        assert (image.format, image.size) == ("PNG", (1024, 1024))
    assert media.leaks == []


def test_version_3_makes_jpegs(shop: Shop, media: MediaHost) -> None:
    verdict, _ = shop.customer.made(IMAGE, "x", req_key="jimeng_t2i_v31", width=640, height=512)
    assert isinstance(verdict, Succeeded)
    with Image.open(BytesIO(media.content(verdict.outputs[0].url or ""))) as image:
        assert (image.format, image.size) == ("JPEG", (640, 512))


@pytest.mark.parametrize(
    ("resolution", "req_key"), [("720p", "jimeng_t2v_v30"), ("1080p", "jimeng_t2v_v30_1080p")]
)
def test_films(shop: Shop, media: MediaHost, resolution: str, req_key: str) -> None:
    verdict, _ = shop.customer.made(VIDEO, "a boat", resolution=resolution, duration_s=10)
    assert isinstance(verdict, Succeeded)
    (output,) = verdict.outputs
    assert output.kind == "video"
    (task,) = shop.server.made("a boat")
    assert task.form is not None
    assert (task.req_key, task.form.video_s) == (req_key, 10)
    assert media.content(output.url or "")[4:8] == b"ftyp"


def test_version_4_makes_several_unless_told_otherwise(shop: Shop, media: MediaHost) -> None:
    verdict, _ = shop.customer.made(IMAGE, "x", force_single=False)
    assert isinstance(verdict, Succeeded)
    contents = {media.content(output.url or "") for output in verdict.outputs}
    assert len(contents) == len(verdict.outputs) == 4
    assert shop.server.account.balance == pytest.approx(1_000_000 - 4 * 0.22)  # each is paid for
    verdict, _ = shop.customer.made(IMAGE, "y", force_single=True)
    assert isinstance(verdict, Succeeded)
    assert len(verdict.outputs) == 1


@pytest.mark.parametrize("kind", ["drop_reply", "garbage", "cut"])
def test_a_lost_submit_made_a_task_that_nobody_can_ask_for(shop: Shop, kind: Any) -> None:
    shop.server.misbehave(Fault(kind, SUBMIT))
    assert isinstance(shop.customer.submit(IMAGE, "lost"), Unknown)
    assert len(shop.server.made("lost")) == 1
    found = shop.customer.find(IMAGE, "att_1", "lost")
    assert isinstance(found, NoVerdict)
    assert not found.gone  # it was not even asked


def test_forbidden_at_once(shop: Shop) -> None:
    verdict = shop.customer.submit(IMAGE, "[moderate-input] x")
    assert isinstance(verdict, Rejected)
    assert (verdict.code, verdict.message) == ("content_moderated", "Text Risk Not Pass (code 50412)")
    assert shop.refused(req_key=V40, prompt="[moderate-input] x") == (400, 50412)
    assert shop.refused(req_key=V40, prompt="[moderate-image] x") == (400, 50411)
    assert shop.server.generations == {}


@pytest.mark.parametrize(("directive", "code"), [("moderate-input", 50412), ("moderate-image", 50411)])
def test_forbidden_only_when_asked_about(shop: Shop, directive: str, code: int) -> None:
    shop.server.moderates_late = True
    accepted = shop.customer.submit(IMAGE, f"[{directive}] [run=9] x")
    assert isinstance(accepted, Accepted)
    verdict, _ = shop.customer.follow(IMAGE, accepted)
    assert isinstance(verdict, Failed)
    assert (verdict.code, verdict.retryable) == ("content_moderated", False)
    reply = shop.look(accepted.provider_ref)
    assert (reply.status, reply.object()["code"], reply.object()["data"]) == (400, code, None)


@pytest.mark.parametrize(("model", "code"), [(IMAGE, 50511), (VIDEO, 50516)])
def test_a_forbidden_result(shop: Shop, model: str, code: int) -> None:
    verdict, _ = shop.customer.made(model, "[moderate-output] x")
    assert isinstance(verdict, Failed)
    assert (verdict.code, verdict.retryable) == ("content_moderated", True)
    assert f"(code {code})" in verdict.message
    assert shop.server.account.balance == 1_000_000


def test_done_is_no_success_with_another_code(shop: Shop) -> None:
    accepted = shop.customer.submit(IMAGE, "[fail] x")
    verdict, _ = shop.customer.follow(IMAGE, accepted)
    assert isinstance(verdict, Failed)
    assert verdict.code == "provider_failed"
    reply = shop.look(accepted.provider_ref)
    assert (reply.status, reply.object()["code"], reply.object()["data"]["status"]) == (500, 50500, "done")
    assert shop.server.account.balance == 1_000_000


@pytest.mark.parametrize(("model", "limit"), [(IMAGE, 3), (VIDEO, 5)])
def test_internal_errors_of_a_query_are_bounded(shop: Shop, model: str, limit: int) -> None:
    accepted = shop.customer.submit(model, "[break] x")
    assert isinstance(accepted, Accepted)
    verdict = shop.customer.poll(model, accepted)
    assert isinstance(verdict, NoVerdict)
    assert (verdict.gone, verdict.final_after) == (False, limit)
    assert "(code 50501)" in verdict.message


@pytest.mark.parametrize(
    ("breaking", "code", "tries"), [(50520, "provider_failed", 1), (50511, "content_moderated", 2)]
)
def test_chance_at_the_submit(shop: Shop, breaking: int, code: str, tries: int) -> None:
    shop.server.breaking = breaking
    verdict = shop.customer.submit(IMAGE, "x")
    assert isinstance(verdict, Rejected)
    assert (verdict.code, verdict.tries) == (code, tries)


# ---------------------------------------------------------------- the gateway

GOLDEN = b'{"req_key":"jimeng_t2i_v40","prompt":"cat"}'
AUTHORIZATION = (
    "HMAC-SHA256 Credential=AKLTEXAMPLE/20260102/cn-north-1/cv/request, "
    "SignedHeaders=content-type;host;x-content-sha256;x-date, "
    "Signature=75ebaee1a1dce717c8c89961da8e7cd8f0ffd0cfd343d70a167cbc9cb9509944"
)


def golden(**changes: Any) -> int | None:
    """What is wrong with the sheet's golden vector after these changes."""
    headers = CIMultiDict(
        {
            "Content-Type": "application/json",
            "Host": "visual.volcengineapi.com",
            "X-Content-Sha256": "740154738e5d8d7026b1b51df274eda35bbe29f4c4d51e5336c424a531352281",
            "X-Date": "20260102T030405Z",
            "Authorization": AUTHORIZATION,
            **changes.pop("headers", {}),
        }
    )
    given = {
        "method": "POST",
        "path": "/",
        "query": f"Action={SUBMIT}&Version={VERSION}",
        "body": GOLDEN,
        "access_key": "AKLTEXAMPLE",
        "secret_key": "c2VjcmV0LWV4YW1wbGU=",
        "now": datetime(2026, 1, 2, 3, 10, tzinfo=UTC).timestamp(),
        **changes,
    }
    return check_signature(headers=headers, **given)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"query": f"Version={VERSION}&Action={SUBMIT}"}, None),  # sorted by both sides
        ({"headers": {"Accept": "*/*"}}, None),  # not signed
        ({"access_key": "AKLTOTHER"}, 100009),
        ({"headers": {"Authorization": ""}}, 100009),
        ({"headers": {"Authorization": "Bearer x"}}, 100009),
        ({"secret_key": "c2VjcmV0LWV4YW1wbGU"}, 100010),
        ({"body": GOLDEN + b" "}, 100010),
        ({"headers": {"Host": "other"}}, 100010),
        ({"headers": {"X-Date": "20260102T030406Z"}}, 100010),
        ({"headers": {"Content-Type": "text/plain"}}, 100010),
        ({"query": f"Action={QUERY}&Version={VERSION}"}, 100010),
        ({"headers": {"Authorization": AUTHORIZATION.replace("cn-north-1", "cn-north-2")}}, 100010),
        ({"headers": {"Authorization": AUTHORIZATION.replace("75eb", "75ec")}}, 100010),
        ({"now": datetime(2026, 1, 2, 3, 30, tzinfo=UTC).timestamp()}, 100010),  # 15 minutes are over
        ({"now": datetime(2026, 1, 2, 2, 45, tzinfo=UTC).timestamp()}, 100010),
    ],
)
def test_golden_vector(changes: dict[str, Any], code: int | None) -> None:
    assert golden(**changes) == code


@pytest.mark.parametrize(
    "names",
    ["host;x-date", "content-type;host;x-date", "host;x-date;x-content-sha256;content-type"],
)
def test_the_clients_list_of_signed_headers_counts(names: str) -> None:
    assert golden(headers={"Authorization": signed_by_hand(names)}) is None
    other = signed_by_hand(names).replace(f"SignedHeaders={names}", f"SignedHeaders={names};x-content-sha256")
    assert golden(headers={"Authorization": other}) == 100010


def signed_by_hand(names: str) -> str:
    """The golden request signed with other headers, in another order, by section A2."""
    values = {
        "content-type": "application/json",
        "host": "visual.volcengineapi.com",
        "x-content-sha256": hashlib.sha256(GOLDEN).hexdigest(),
        "x-date": "20260102T030405Z",
    }
    block = "".join(f"{name}:{values[name]}\n" for name in names.split(";"))
    query, digest = f"Action={SUBMIT}&Version={VERSION}", hashlib.sha256(GOLDEN).hexdigest()
    canonical = f"POST\n/\n{query}\n{block}\n{names}\n{digest}"
    scope = "20260102/cn-north-1/cv/request"
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    key = b"c2VjcmV0LWV4YW1wbGU="
    for part in (*scope.split("/"), f"HMAC-SHA256\n{values['x-date']}\n{scope}\n{hashed}"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return f"HMAC-SHA256 Credential=AKLTEXAMPLE/{scope}, SignedHeaders={names}, Signature={key.hex()}"


def gateway_error(reply: Reply) -> tuple[int, int, str]:
    error = reply.object()["ResponseMetadata"]["Error"]
    assert "code" not in reply.object()
    return reply.status, error["CodeN"], error["Code"]


def test_who_may_come_in(shop: Shop) -> None:
    body = {"req_key": V40, "prompt": "x"}
    assert gateway_error(shop.ask(SUBMIT, body, access_key="AKLTwrong")) == (401, 100009, "InvalidAccessKey")
    refused = (403, 100010, "SignatureDoesNotMatch")
    assert gateway_error(shop.ask(SUBMIT, body, secret_key="wrong")) == refused
    then = datetime.fromtimestamp(time.time() - 1000, UTC)
    assert gateway_error(shop.ask(SUBMIT, body, at=then)) == refused
    unsigned = shop.customer.ask("POST", f"{shop.server.url}/?Action={SUBMIT}&Version={VERSION}", body)
    assert gateway_error(unsigned)[:2] == (401, 100009)
    assert shop.server.generations == {}


@pytest.mark.parametrize("secrets", [{"access_key": "AKLTwrong"}, {"secret_key": "wrong"}])
def test_wrong_credentials_are_the_accounts_trouble(server: Jimeng, secrets: Mapping[str, str]) -> None:
    right = {"access_key": server.account.key, "secret_key": server.account.secret_key}
    with Customer("jimeng", server.url, {**right, **secrets}) as stranger:
        verdict = stranger.submit(IMAGE, "x")
    assert isinstance(verdict, NotAccepted)
    assert verdict.trouble is Trouble.CREDENTIALS


def test_action_and_version_stand_in_the_query(shop: Shop) -> None:
    body = {"Action": SUBMIT, "Version": VERSION, "req_key": V40, "prompt": "x"}
    root = shop.server.url
    for url in (f"{root}/", f"{root}/?Action={SUBMIT}", f"{root}/?Version={VERSION}"):
        assert gateway_error(shop.ask("", body, url=url)) == (400, 100002, "MissingParameter")
    for url in (f"{root}/?Action=Nothing&Version={VERSION}", f"{root}/?Action={SUBMIT}&Version=2020-01-01"):
        assert gateway_error(shop.ask("", body, url=url)) == (404, 100007, "ServiceNotFound")


@pytest.mark.parametrize("code", GATEWAY)
def test_every_code_of_the_gateway(shop: Shop, code: int) -> None:
    shop.server.account.refusing = code
    assert gateway_error(shop.ask(SUBMIT, {}))[1] == code
    assert not isinstance(shop.customer.submit(IMAGE, "x"), Accepted)
    assert isinstance(shop.customer.poll(IMAGE, Accepted(provider_ref="1")), NoVerdict)


HTTP = {429: (50429, 50430), 500: (50500, 50501), 401: (50400,), 200: (10000,)}


@pytest.mark.parametrize("code", [code for code in CODES if code != 10000])
def test_every_code(shop: Shop, code: int) -> None:
    shop.server.account.refusing = code
    status = next((status for status, codes in HTTP.items() if code in codes), 400)
    assert shop.refused(req_key=V40, prompt="x") == (status, code)
    verdict = shop.customer.submit(IMAGE, "x")
    assert isinstance(verdict, Rejected | NotAccepted)
    assert f"(code {code})" in verdict.message
    assert shop.server.generations == {}


def test_the_sheets_codes_are_all_there() -> None:
    sheet = (10000, 50411, 50412, 50413, 50511, 50512, 50516, 50517, 50518, 50519, 50520, 50521, 50522,
             50429, 50430, 50500, 50501, 50215, 50400)  # fmt: skip
    assert set(CODES) == set(sheet)
    assert set(GATEWAY) == {100002, 100007, 100009, 100010, 100013}


# ---------------------------------------------------------------- limits


def trouble(verdict: Any) -> Trouble:
    assert isinstance(verdict, NotAccepted), verdict
    return verdict.trouble


def test_two_at_once(shop: Shop) -> None:
    for _ in range(2):
        assert isinstance(shop.customer.submit(IMAGE, "[run=9] x"), Accepted)
    assert trouble(shop.customer.submit(IMAGE, "x")) is Trouble.BUSY
    assert shop.refused(req_key=V40, prompt="x") == (429, 50430)
    shop.finish()
    assert isinstance(shop.customer.submit(IMAGE, "x"), Accepted)
    assert len(shop.server.generations) == 3


def test_calls_in_a_second_looks_among_them(shop: Shop) -> None:
    shop.server.account.calls, shop.server.account.window_s = 2, 60
    accepted = shop.customer.submit(IMAGE, "x")
    assert isinstance(accepted, Accepted)
    shop.customer.poll(IMAGE, accepted)
    assert trouble(shop.customer.submit(IMAGE, "x")) is Trouble.BUSY
    limited = shop.customer.poll(IMAGE, accepted)
    assert isinstance(limited, NoVerdict)
    assert not limited.gone
    assert "(code 50429)" in limited.message
    assert limited.retry_after_s == 2.0
    shop.server.account.window_s = 0
    assert isinstance(shop.customer.submit(IMAGE, "x"), Accepted)


def test_an_empty_account_is_denied(shop: Shop) -> None:
    shop.server.account.balance = 0.2
    verdict = shop.customer.submit(IMAGE, "x")
    assert trouble(verdict) is Trouble.CREDENTIALS  # the one code for everything that is not permitted
    assert shop.refused(req_key=V40, prompt="x") == (401, 50400)
    shop.server.account.balance = 0.22
    assert isinstance(shop.customer.submit(IMAGE, "x"), Accepted)


# ---------------------------------------------------------------- looks


def test_only_the_same_req_key_finds_a_task(shop: Shop) -> None:
    task_id = shop.submit()
    assert shop.data(task_id)["status"] in ("in_queue", "generating", "done")
    assert shop.data(task_id, "jimeng_t2i_v31")["status"] == "not_found"
    assert shop.data("1")["status"] == "not_found"
    gone = shop.customer.poll(IMAGE, Accepted(provider_ref=task_id, memo={"req_key": "jimeng_t2i_v31"}))
    assert isinstance(gone, NoVerdict)
    assert gone.gone


@pytest.mark.parametrize("req_json", [None, "{}", '{"return_url":false}'])
def test_without_return_url_there_is_only_base64(shop: Shop, media: MediaHost, req_json: str | None) -> None:
    task_id = shop.submit(prompt="inline")
    shop.finish()
    data = shop.data(task_id, req_json=req_json)
    assert (data["status"], data["image_urls"]) == ("done", None)
    (inline,) = data["binary_data_base64"]
    with_url = shop.data(task_id)
    assert with_url["binary_data_base64"] is None
    assert base64.b64decode(inline) == media.content(with_url["image_urls"][0])


@pytest.mark.parametrize("req_json", [{"return_url": True}, "return_url", 7])
def test_req_json_is_an_object_written_as_a_string(shop: Shop, req_json: Any) -> None:
    reply = shop.look(shop.submit(), req_json=req_json)
    assert (reply.status, reply.object()["code"]) == (400, 50215)


def test_tasks_are_forgotten_and_may_expire(shop: Shop) -> None:
    accepted = shop.customer.submit(IMAGE, "x")
    shop.server.generations[accepted.provider_ref].made_at -= 12 * 3600 - 60
    assert isinstance(shop.customer.poll(IMAGE, accepted), Succeeded)
    shop.server.record_life_s = 3600
    assert shop.data(accepted.provider_ref)["status"] == "not_found"
    lapsed = shop.customer.submit(IMAGE, "[lapse] x")
    shop.finish()
    verdict = shop.customer.poll(IMAGE, lapsed)
    assert isinstance(verdict, NoVerdict)
    assert (verdict.gone, "expired" in verdict.message) == (True, True)


@pytest.mark.parametrize(("model", "life"), [(IMAGE, "image_life_s"), (VIDEO, "video_life_s")])
def test_urls_die_and_another_look_brings_new_ones(shop: Shop, model: str, life: str) -> None:
    assert (shop.server.image_life_s, shop.server.video_life_s) == (86_400, 3600)
    setattr(shop.server, life, 0.3)
    accepted = shop.customer.submit(model, "x")
    verdict, _ = shop.customer.follow(model, accepted)
    assert isinstance(verdict, Succeeded)
    url = verdict.outputs[0].url or ""
    wait_until(lambda: shop.customer.ask("GET", url).status == 403)
    setattr(shop.server, life, 60)
    again = shop.customer.poll(model, accepted)
    assert isinstance(again, Succeeded)
    assert again.outputs[0].url != url
    assert shop.customer.ask("GET", again.outputs[0].url or "").status == 200


def test_a_url_that_is_dead_from_the_start(shop: Shop) -> None:
    accepted = shop.customer.submit(IMAGE, "[expire] x")
    shop.finish()
    for _ in range(2):
        verdict = shop.customer.poll(IMAGE, accepted)
        assert isinstance(verdict, Succeeded)
        assert shop.customer.ask("GET", verdict.outputs[0].url or "").status == 403


# ---------------------------------------------------------------- products


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"req_key": "jimeng_t2i_v99", "prompt": "x"},
        {"req_key": V40},
        {"req_key": V40, "prompt": ""},
        {"req_key": V40, "prompt": "x" * 801},
        {"req_key": V40, "prompt": "x", "width": 1024},
        {"req_key": V40, "prompt": "x", "width": 1024, "height": 1024, "size": 4194304},
        {"req_key": V40, "prompt": "x", "width": 512, "height": 512},
        {"req_key": V40, "prompt": "x", "size": 1000},
        {"req_key": V40, "prompt": "x", "size": "4194304"},
        {"req_key": V40, "prompt": "x", "scale": 50},
        {"req_key": V40, "prompt": "x", "min_ratio": 2, "max_ratio": 1},
        {"req_key": V40, "prompt": "x", "image_urls": ["https://x/a.png"] * 11},
        {"req_key": V40, "prompt": "x", "image_urls": [PICTURE]},
        {"req_key": "jimeng_seedream46_cvtob", "prompt": "x", "scale": 0.5},
        {"req_key": "jimeng_t2i_v31", "prompt": "x", "width": 9999, "height": 512},
        {"req_key": "jimeng_t2i_v30", "prompt": "x", "seed": -2},
        {"req_key": "jimeng_i2i_v30", "prompt": "x"},
        {"req_key": "jimeng_i2i_v30", "prompt": "x", "binary_data_base64": [PICTURE, PICTURE]},
        {"req_key": "jimeng_i2i_v30", "prompt": "x", "binary_data_base64": ["hello"]},
        {
            "req_key": "jimeng_i2i_v30",
            "prompt": "x",
            "binary_data_base64": [f"data:image/png;base64,{PICTURE}"],
        },
        {"req_key": "jimeng_image2image_dream_inpaint", "prompt": "x", "binary_data_base64": [PICTURE]},
        {"req_key": "jimeng_t2v_v30", "prompt": "x", "frames": 120},
        {"req_key": "jimeng_t2v_v30", "prompt": "x", "aspect_ratio": "2:1"},
        {"req_key": "jimeng_t2v_v30_1080", "prompt": "x"},  # the naming trap
        {"req_key": "jimeng_i2v_first_v30_1080p", "prompt": "x", "binary_data_base64": [PICTURE]},
        {"req_key": "jimeng_i2v_first_v30", "prompt": "x"},
        {"req_key": "jimeng_i2v_first_v30", "prompt": "x", "binary_data_base64": [SMALL]},
        {"req_key": "jimeng_i2v_first_v30", "prompt": "x", "binary_data_base64": [NARROW]},
        {"req_key": "jimeng_i2v_first_tail_v30", "prompt": "x", "binary_data_base64": [PICTURE]},
        {"req_key": "jimeng_i2v_recamera_v30", "prompt": "x", "binary_data_base64": [PICTURE]},
        {"req_key": "jimeng_ti2v_v30_pro"},
    ],
)
def test_invalid_input(shop: Shop, body: dict[str, Any]) -> None:
    assert shop.refused(**body) == (400, 50215)
    assert shop.server.generations == {}


@pytest.mark.parametrize(
    ("req_key", "fields", "format"),
    [
        (V40, {"width": 2048, "height": 1024, "scale": 0.3, "image_urls": ["https://x/a.png"] * 10}, "PNG"),
        ("jimeng_seedream46_cvtob", {"scale": 100, "image_urls": ["https://x/a.png"] * 14}, "PNG"),
        ("jimeng_t2i_v30", {"seed": 7, "use_pre_llm": False}, "JPEG"),
        ("jimeng_i2i_v30", {"binary_data_base64": [PICTURE], "scale": 1}, "JPEG"),
        ("jimeng_image2image_dream_inpaint", {"binary_data_base64": [PICTURE, PICTURE]}, "JPEG"),
        ("jimeng_i2i_seed3_tilesr_cvtob", {"image_urls": ["https://x/a.png"], "resolution": "8k"}, "JPEG"),
        ("jimeng_t2v_v30_1080p", {"frames": 241, "aspect_ratio": "21:9", "seed": -1}, "mp4"),
        ("jimeng_i2v_first_v30_1080", {"binary_data_base64": [PICTURE]}, "mp4"),
        ("jimeng_i2v_first_tail_v30_1080", {"image_urls": ["https://x/a.png", "https://x/b.png"]}, "mp4"),
        (
            "jimeng_i2v_recamera_v30",
            {"binary_data_base64": [PICTURE], "template_id": "hitchcock_dolly_in"},
            "mp4",
        ),
        ("jimeng_ti2v_v30_pro", {"binary_data_base64": [PICTURE]}, "mp4"),
    ],
)
def test_every_product(
    shop: Shop, media: MediaHost, req_key: str, fields: dict[str, Any], format: str
) -> None:
    task_id = shop.submit(req_key=req_key, prompt="x", **fields)
    shop.finish()
    data = shop.data(task_id, req_key)
    if format == "mp4":
        assert data.keys() == {"status", "video_url", "aigc_meta_tagged"}
        assert media.content(data["video_url"])[4:8] == b"ftyp"
        return
    with Image.open(BytesIO(media.content(data["image_urls"][0]))) as image:
        assert image.format == format
        if "width" in fields:
            assert image.width == 2 * image.height


# ---------------------------------------------------------------- callback


def test_it_calls_back_with_urls_if_the_submit_asked_for_them(shop: Shop, receiver: Receiver) -> None:
    accepted = shop.customer.submit(IMAGE, "x", callback_url=f"{receiver.url}/hook")
    wait_until(lambda: receiver.calls)
    (call,) = receiver.asked("POST /hook")
    told = call.json()
    assert (told["code"], told["status"], told["task_id"]) == (10000, 10000, accepted.provider_ref)
    assert told["data"]["status"] == "done"
    assert told["data"]["image_urls"] == shop.data(accepted.provider_ref)["image_urls"]


def test_it_calls_back_with_base64_otherwise(shop: Shop, receiver: Receiver) -> None:
    shop.submit(callback_url=f"{receiver.url}/hook")
    wait_until(lambda: receiver.calls)
    data = receiver.calls[0].json()["data"]
    assert (data["image_urls"], len(data["binary_data_base64"])) == (None, 1)


def test_a_failure_calls_back_and_films_never_do(shop: Shop, receiver: Receiver) -> None:
    film = shop.submit(req_key="jimeng_t2v_v30", prompt="x", callback_url=f"{receiver.url}/film")
    shop.submit(prompt="[moderate-output] x", callback_url=f"{receiver.url}/hook")
    wait_until(lambda: receiver.calls)
    wait_until(lambda: shop.data(film, "jimeng_t2v_v30")["status"] == "done")
    (call,) = receiver.calls
    assert (call.json()["code"], call.json()["data"]) == (50511, {"resp_data": ""})
    assert shop.server.generations[film].hooked == 0


@pytest.mark.parametrize("req_key", [V40, "jimeng_seedream46_cvtob"])
def test_version_4_knows_no_pictures_in_base64(shop: Shop, req_key: str) -> None:
    """So they do not count as sent (section A6): a group of 15 and not of 14 may be made, and rubbish is no error."""
    task_id = shop.submit(
        req_key=req_key, binary_data_base64=["rubbish"] * 20, image_urls=["https://a.example/1"]
    )
    form = shop.server.generations[task_id].form
    assert form is not None
    assert form.sent == 1


def test_pictures_in_base64_may_be_larger_than_any_other_answer(shop: Shop) -> None:
    """Where `return_url` is ignored after all (section A4); more than 64 MiB tell nothing, like an answer cut off."""
    accepted = shop.customer.submit(IMAGE, "x")
    for size, seen in ((12, Succeeded), (65, NoVerdict)):
        data = {"status": "done", "binary_data_base64": ["QUJD" * (size * 1024 * 1024 // 4)]}
        body = json.dumps({"code": 10000, "data": data, "message": "Success"}).encode()
        shop.server.misbehave(Fault("answer", match=QUERY, status=200, body=body))
        verdict = shop.customer.poll(IMAGE, accepted)
        assert isinstance(verdict, seen)
    assert "larger than" in verdict.message
