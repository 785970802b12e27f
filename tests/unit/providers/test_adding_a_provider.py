"""What `docs/adding-a-provider.md` shows is a whole provider: its very text is run here."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest

from common.providers import registry
from common.providers.pricing import price_of
from tests.unit.providers import guide
from tests.unit.providers import test_registry as registered
from tests.unit.providers.fakes import like, poll, reply, submit
from tests.unit.providers.guide import table
from web import provider_docs


@pytest.fixture
def example() -> Iterator[ModuleType]:
    with guide.registered() as module:
        yield module


def test_its_table_holds(example: ModuleType) -> None:
    rows = table()
    for target, answer, expected in rows["SUBMITS"]:
        like(submit(*target, answer), expected[0], **expected[1])
    for target, answer, expected in rows["POLLS"]:
        like(poll(*target, answer), expected[0], **expected[1])


def test_it_is_like_every_other_provider(example: ModuleType) -> None:
    registered.test_a_schema_is_valid_and_documents_itself("example/picture")
    registered.test_defaults_are_accepted_one_by_one_and_have_a_price("example/picture")
    registered.test_every_combination_that_the_schema_admits_has_a_price()
    assert registry.adapters_for("example/picture") == ("example",)
    assert price_of(example.MODELS[0].price, {"quality": "fine"})[0] == 12
    verdict = submit("example", "example/picture", reply(401, {"error": "example-s3cret is no key"}))
    assert "example-s3cret" not in str(verdict)
    for garbage in (b"", b"[]", b"null", b'{"state": 5}', b"\xff", b'{"id": {"a": 1}}'):
        submit("example", "example/picture", reply(201, garbage))
        poll("example", "example/picture", reply(200, garbage))


def test_the_documents_know_it(example: ModuleType) -> None:
    written = provider_docs.text()
    assert "### `example/picture`" in written
    assert "by `quality`: draft 3, fine 12" in written
    assert "- Results are deleted after an hour." in written


def test_afterwards_nobody_knows_it() -> None:
    with guide.registered():
        assert "example/picture" in registry.MODELS
    assert "example/picture" not in registry.MODELS
    assert "example" not in registry.ADAPTERS
