"""What the simulated AI services have in common: an account to be used up, and a memory of what was made for whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from tests.simulators.frame import Simulator
from tests.simulators.media import MediaHost
from tests.simulators.pace import QUICK, Generation, Pace

G = TypeVar("G", bound=Generation)


@dataclass(slots=True)
class Account:
    """One customer of the service. Tests change it while the service runs."""

    key: str
    balance: float = 1_000_000.0  # in the service's own unit
    at_once: int = 24  # generations under way; what more means is the service's own rule


class Provider(Simulator, Generic[G]):
    """A service that makes pictures or films. `generations` holds all that was ever accepted, by the service's id."""

    def __init__(self, media: MediaHost, pace: Pace = QUICK) -> None:
        super().__init__()
        self.media = media
        self.pace = pace
        self.generations: dict[str, G] = {}

    def expire_links(self) -> None:
        """Let every result's URL be dead from now on, while the records live. Some services give new ones."""
        for generation in list(self.generations.values()):
            for url in generation.results or ():
                self.media.expire(url)

    def made(self, prompt: str) -> list[G]:
        """What was accepted for this prompt, the first one first."""
        return [generation for generation in list(self.generations.values()) if generation.prompt == prompt]
