"""What `docs/adding-a-provider.md` shows is a whole provider: its very text is run here."""

from __future__ import annotations

import re
import sys
from types import ModuleType
from typing import Any

import pytest

from common.providers import registry
from common.providers.base import Succeeded
from common.providers.pricing import price_of
from tests.infrastructure.environment import ROOT
from tests.unit.providers import fakes
from tests.unit.providers import test_registry as registered
from tests.unit.providers.conformance import vocabulary
from tests.unit.providers.fakes import like, poll, reply, submit
from web import provider_docs

GUIDE = (ROOT / "docs" / "adding-a-provider.md").read_text()
ADAPTER, LINE, TABLE = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The guide's file, known to the registry by the guide's line."""
    module = ModuleType("common.providers.example")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(ADAPTER, "docs/adding-a-provider.md", "exec"), module.__dict__)
    entry: dict[str, registry.Provider] = eval(
        "{" + LINE + "}", {"Provider": registry.Provider, "example": module}
    )
    monkeypatch.setitem(registry.PROVIDERS, "example", entry["example"])
    monkeypatch.setitem(registry.ADAPTERS, "example", module.Example)
    monkeypatch.setitem(registry.MODELS, "example/picture", module.MODELS[0])
    monkeypatch.setitem(fakes.BASES, "example", module.Example.official_url)
    monkeypatch.setitem(fakes.SECRETS, "example", {"api_key": "example-s3cret"})
    return module


def table() -> dict[str, Any]:
    """The guide's rows."""
    names: dict[str, Any] = {**vars(vocabulary), "reply": reply, "Succeeded": Succeeded}
    exec(compile(TABLE, "docs/adding-a-provider.md", "exec"), names)
    return names


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
