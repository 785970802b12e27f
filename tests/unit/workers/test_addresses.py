"""Nobody outside can make a worker call an address inside."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from common import addresses as written
from common.addresses import AddressRefused, is_public
from common.providers.base import NotSent
from workers import addresses
from workers.addresses import check_url, parse_url
from workers.http import AioHttp

REFUSED = [
    "http://127.0.0.1/",
    "http://127.8.9.10:8080/",
    "https://0.0.0.0/",
    "http://10.1.2.3/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.1.1/admin",
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.0.23/",
    "http://100.64.0.1/",
    "http://100.100.100.200/",
    "http://168.63.129.16/",
    "http://192.0.0.192/",
    "http://192.0.2.1/",
    "http://198.18.0.1/",
    "http://203.0.113.9/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:8.8.8.8]/",
    "http://[::127.0.0.1]/",
    "http://[fe80::1]/",
    "http://[fc00::1]/",
    "http://[fd00:ec2::254]/",
    "http://[ff02::1]/",
    "http://[2001:db8::1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001::1]/",
    "http://[64:ff9b::10.0.0.1]/",
    "http://[64:ff9b:1::1]/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://127.0.0.1./",
    "http://user@example.com/",
    "http://user:password@example.com/",
    "http://@127.0.0.1/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com/",
    "//example.com/",
    "/path",
    "",
    "http://",
    "http:///path",
    "http://example.com\\@127.0.0.1/",
    "http://example.com\r\nX: y/",
    "http://[::1",
    "http://example.com:port/",
    "javascript:alert(1)",
    "http://" + "a" * 9000,
    "http://localhost/",
    "http://inner.localhost./",
    "http://a..b/",
    "http://./",
    "http://" + "a" * 64 + ".com/",
    "http://" + "a." * 127 + "com/",
    "http://%00/",
    "http://a%2eb/",
    "http://example.com:99999/",
    "http://1.2.3.256/",
    "http://0x/",
]
ALLOWED = [
    "http://example.com/",
    "https://example.com:8443/a/b?c=d",
    "https://1.1.1.1/",
    "http://[2606:4700::1111]/",
    "http://[64:ff9b::8.8.8.8]/",
    "https://bücher.example/",
    "HTTPS://EXAMPLE.COM/",
    "http://my_host.example.com./",
    "http://0x1.example/",
]


@pytest.mark.parametrize("url", REFUSED)
def test_refused(url: str) -> None:
    with pytest.raises(AddressRefused):
        check_url(url, allow_private=False)


@pytest.mark.parametrize("url", ALLOWED)
def test_allowed(url: str) -> None:
    assert check_url(url, allow_private=False)


@pytest.mark.parametrize("url", REFUSED)
def test_what_a_worker_would_refuse_is_refused_at_the_door(url: str) -> None:
    if len(url) < 2000:  # which is said there, too, for other reasons
        with pytest.raises(AddressRefused):
            written.check_url(url, allow_private=False)


@pytest.mark.parametrize("url", ALLOWED)
def test_what_a_worker_would_call_may_be_named(url: str) -> None:
    written.check_url(url, allow_private=False)


def test_the_door_knows_private_addresses_when_they_are_allowed() -> None:
    for url in (
        "http://127.0.0.1:9000/x",
        "http://localhost/",
        "http://[fe80::1%25eth0]/",
        "http://receiver:80/",
    ):
        written.check_url(url, allow_private=True)
    for url in (
        "ftp://127.0.0.1/",
        "http://a:b@127.0.0.1/",
        "http://127.1/",
        "http://a..b/",
        "http://a:0/",
        "http://[v1.abc]/",
    ):
        with pytest.raises(AddressRefused):
            written.check_url(url, allow_private=True)


def test_a_name_that_is_none_leads_nowhere() -> None:
    with pytest.raises(OSError, match="valid name"):
        asyncio.run(addresses.SystemResolver().resolve("a..b"))


def test_private_is_allowed_on_request_but_nonsense_is_not() -> None:
    assert check_url("http://127.0.0.1:9000/x", allow_private=True).port == 9000
    for url in ("ftp://127.0.0.1/", "http://a:b@127.0.0.1/", "http://"):
        with pytest.raises(AddressRefused):
            check_url(url, allow_private=True)


@pytest.mark.parametrize("host", ["a..b", "xn--a", "ü" + "a" * 70 + ".com", "a" * 64 + ".com"])
def test_a_host_that_is_none_was_called_by_nobody(host: str) -> None:
    async def main() -> None:
        http = AioHttp(allow_private=True)
        for send_to in (http.send, http.send_guarded):
            with pytest.raises(NotSent):
                await send_to("POST", f"http://{host}/")
        await http.close()

    asyncio.run(main())


def test_encoding_survives() -> None:
    url = "https://example.com/a%2Fb%7E?sign=q%2Bz%3D&x=%E4%B8%AD"
    assert str(check_url(url, allow_private=False)) == url
    assert str(parse_url("中.png?a=b c")) == "%E4%B8%AD.png?a=b+c"


@pytest.mark.parametrize("address", ["", "localhost", "example.com", "1.2.3", "::1%lo", "fe80::1%eth0"])
def test_what_is_no_public_literal_is_not_public(address: str) -> None:
    assert not is_public(address)


class Names(AbstractResolver):
    """Answers each look-up with the next list of addresses; the last one stays."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        self.asked += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        kinds = {True: socket.AF_INET6, False: socket.AF_INET}
        return [
            ResolveResult(hostname=host, host=ip, port=port, family=kinds[":" in ip], proto=0, flags=0)
            for ip in answer
        ]

    async def close(self) -> None:
        pass


def send(names: Names, times: int = 1) -> list[str]:
    """The messages of that many guarded tries."""

    async def main() -> list[str]:
        http = AioHttp(allow_private=False, resolver=names)
        messages = []
        for _ in range(times):
            try:
                await http.send_guarded("GET", "http://rebind.example/", timeout_s=2)
            except NotSent as error:
                messages.append(str(error))
        await http.close()
        return messages

    return asyncio.run(main())


@pytest.fixture
def targets(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a connection would have gone to. Nothing leaves the machine."""
    seen: list[str] = []

    def gate(address: Any) -> socket.socket:
        seen.append(address[4][0])
        raise OSError(errno.ECONNREFUSED, "caught by the test")

    monkeypatch.setattr(addresses, "_guarded_socket", gate)
    return seen


@pytest.mark.parametrize(
    "answer", [["127.0.0.1"], ["10.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["::1"], ["8.8.8.8", "::ffff:10.0.0.1"]]
)
def test_name_that_leads_inside_is_refused(answer: list[str], targets: list[str]) -> None:
    assert "public" in send(Names(answer))[0]
    assert targets == []


def test_connects_to_the_very_addresses_that_were_checked(targets: list[str]) -> None:
    names = Names(["8.8.8.8"], ["127.0.0.1"])
    assert "caught by the test" in send(names)[0]
    assert targets == ["8.8.8.8"]
    assert names.asked == 1  # no second look-up between check and connection


def test_rebinding_later_gains_nothing(targets: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_DNS_CACHE_S", 0)
    messages = send(Names(["8.8.8.8"], ["127.0.0.1"]), times=2)
    assert targets == ["8.8.8.8"]
    assert "caught" in messages[0]
    assert "public" in messages[1]


def test_last_gate_refuses_even_a_lying_connector(free_port: int) -> None:
    with pytest.raises(AddressRefused):
        addresses._guarded_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", free_port)))


def test_system_resolver_is_guarded(web_server: Any) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text="inside")

    async def main() -> None:
        http = AioHttp(allow_private=False)
        async with web_server(handler) as url:
            for foreign in (url, url.replace("127.0.0.1", "localhost")):
                with pytest.raises(NotSent, match="public"):
                    await http.send_guarded("GET", foreign)
            assert (await http.send("GET", url)).body == b"inside"
        await http.close()

    asyncio.run(main())
