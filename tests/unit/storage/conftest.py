"""A COS bucket that nobody may use without a signature."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulators.cos import Cos
from tests.simulators.frame import Stage


@pytest.fixture
def cos() -> Iterator[Cos]:
    """A running bucket; `cos.host` is what COS_DOMAIN would be."""
    bucket = Cos(public=False)
    with Stage([bucket]):
        yield bucket
