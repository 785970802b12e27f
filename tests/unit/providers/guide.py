"""The provider that `docs/adding-a-provider.md` shows: its very text, as a provider."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from common.providers import registry
from common.providers.base import Succeeded
from tests.infrastructure.environment import ROOT
from tests.unit.providers import fakes
from tests.unit.providers.conformance import vocabulary

_GUIDE = "docs/adding-a-provider.md"
_FILE, _LINE, _TABLE = re.findall(r"```python\n(.*?)```", (ROOT / _GUIDE).read_text(), re.DOTALL)


@contextmanager
def registered() -> Iterator[ModuleType]:
    """The guide's file as a module, known to the registry by the guide's line; forgotten afterwards."""
    known: tuple[dict[str, Any], ...] = (
        registry.PROVIDERS, registry.ADAPTERS, registry.MODELS, fakes.BASES, fakes.SECRETS
    )  # fmt: skip
    before = [dict(names) for names in known]
    module = ModuleType("example")
    exec(compile(_FILE, _GUIDE, "exec"), module.__dict__)
    line: dict[str, registry.Provider] = eval(
        "{" + _LINE + "}", {"Provider": registry.Provider, "example": module}
    )
    try:
        for name, provider in line.items():
            registry.register(name, provider)
        fakes.BASES["example"] = module.Example.official_url
        fakes.SECRETS["example"] = {"api_key": "example-s3cret"}
        yield module
    finally:
        for names, were in zip(known, before, strict=True):
            names.clear()
            names.update(were)


def table() -> dict[str, Any]:
    """The guide's rows."""
    names: dict[str, Any] = {**vars(vocabulary), "reply": fakes.reply, "Succeeded": Succeeded}
    exec(compile(_TABLE, _GUIDE, "exec"), names)
    return names
