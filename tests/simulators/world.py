"""All simulated services together, and the settings that lead the platform to them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

from tests.simulators.bfl import Bfl
from tests.simulators.cos import Cos
from tests.simulators.fal import Fal
from tests.simulators.frame import REMEMBERED, Simulator, Stage
from tests.simulators.jimeng import Jimeng
from tests.simulators.kling import Kling
from tests.simulators.media import MediaHost
from tests.simulators.midjourney import Midjourney
from tests.simulators.pace import Generation, Pace
from tests.simulators.provider import Provider

IMAGE, VIDEO = Pace(0.2, 0.8), Pace(0.3, 2.0)
Flux = Literal["bfl", "fal"]


class World:
    """Every service on a port of its own. Leaving the `with` ends them, and fails if one of them broke inside.

    `image` and `video`: how long things take. `at_once`: how many generations each account may have under way,
    instead of the services' own limits. `cos_folder`: keeps the bucket's objects, and its port, for the next time.
    `remembered`: how many calls each service keeps for tests to look at.
    """

    def __init__(
        self,
        *,
        image: Pace = IMAGE,
        video: Pace = VIDEO,
        at_once: int | None = None,
        cos_folder: Path | None = None,
        cos_public: bool = True,
        remembered: int = REMEMBERED,
    ) -> None:
        self.media = MediaHost()
        self.midjourney = Midjourney(self.media, image)
        self.kling = Kling(self.media, video)
        self.jimeng = Jimeng(self.media, image)
        self.bfl = Bfl(self.media, image)
        self.fal = Fal(self.media, image)
        self.cos = Cos(folder=cos_folder, public=cos_public)
        self.providers: tuple[Provider[Any], ...] = (
            self.midjourney, self.kling, self.jimeng, self.bfl, self.fal,
        )  # fmt: skip
        self._at_once = at_once
        self.stage = Stage(self.simulators)
        for simulator in self.simulators:
            simulator.calls = deque(maxlen=remembered)
        if at_once is not None:
            for provider in self.providers:
                provider.account.at_once = at_once

    @property
    def simulators(self) -> tuple[Simulator, ...]:
        """All of them."""
        return (self.media, self.cos, *self.providers)

    def __enter__(self) -> Self:
        self.stage.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.stage.__exit__(*error)

    # ------------------------------------------------------------ how to get there

    def environment(
        self, *, storage: Literal["local", "cos"] = "local", flux: Sequence[Flux] = ("bfl", "fal")
    ) -> dict[str, str]:
        """The settings of a platform whose providers these are; Flux through the given services only."""
        chosen = {
            "ALLOW_PRIVATE_ADDRESSES": "true",
            "STORAGE": storage,
            "MIDJOURNEY_BASE_URL": self.midjourney.url,
            "MIDJOURNEY_API_SECRET": self.midjourney.account.key,
            "KLING_BASE_URL": self.kling.url,
            "KLING_API_KEY": self.kling.account.key,
            "JIMENG_BASE_URL": self.jimeng.url,
            "JIMENG_ACCESS_KEY": self.jimeng.account.key,
            "JIMENG_SECRET_KEY": self.jimeng.account.secret_key,
        }
        if "bfl" in flux:
            chosen |= {"BFL_BASE_URL": self.bfl.url, "BFL_API_KEY": self.bfl.account.key}
        if "fal" in flux:
            chosen |= {"FAL_BASE_URL": self.fal.url, "FAL_KEY": self.fal.account.key}
        if self._at_once is not None:
            chosen |= {f"{each.name.upper()}_MAX_CONCURRENCY": str(self._at_once) for each in self.providers}
        return chosen | (self._bucket() if storage == "cos" else {})

    def _bucket(self) -> dict[str, str]:
        return {
            "COS_BUCKET": self.cos.bucket,
            "COS_SECRET_ID": self.cos.keys.secret_id,
            "COS_SECRET_KEY": self.cos.keys.secret_key,
            "COS_TOKEN": self.cos.keys.token,
            "COS_DOMAIN": self.cos.host,
            "COS_SCHEME": "http",
        }

    # ------------------------------------------------------------ what happens there

    def behave(self) -> None:
        """Forget all faults, everywhere."""
        for simulator in self.simulators:
            simulator.behave()

    @contextmanager
    def out_of_money(self, name: str) -> Iterator[None]:
        """An account whose balance is used up for a while."""
        account = getattr(self, name).account
        before, account.balance = account.balance, 0.0
        try:
            yield
        finally:
            account.balance = before

    # ------------------------------------------------------------ what happened

    def created(self) -> dict[str, int]:
        """How many generations each provider has accepted."""
        return {provider.name: len(provider.generations) for provider in self.providers}

    def made(self, prompt: str) -> list[Generation]:
        """What was accepted for this prompt, anywhere."""
        return [made for provider in self.providers for made in provider.made(prompt)]

    def submits(self, prompt: str) -> int:
        """How often this prompt was accepted, anywhere."""
        return len(self.made(prompt))

    def made_for(self, prompt: str) -> list[bytes]:
        """The results for this prompt, byte for byte."""
        return [self.media.content(url) for made in self.made(prompt) for url in made.results or ()]
