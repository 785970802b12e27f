"""All simulators together, in this process and in one of their own."""

from __future__ import annotations

import json
import signal
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.providers.base import NotAccepted, Succeeded, Trouble
from common.settings import Settings
from common.storage import new_storage
from tests.infrastructure.children import spawn, tail, wait_until
from tests.infrastructure.environment import ROOT, clean_environment
from tests.simulators.frame import Fault
from tests.simulators.pace import Pace
from tests.simulators.world import World
from tests.unit.simulators.customer import Customer

QUICK = Pace(0.02, 0.05)
JOBS = {
    "midjourney": "midjourney/imagine",
    "kling": "kling/text-to-video",
    "jimeng": "jimeng/text-to-image",
    "bfl": "flux/pro-1.1",
    "fal": "flux/pro-1.1",
}


@pytest.fixture
def world() -> Iterator[World]:
    with World(image=QUICK, video=QUICK) as world:
        yield world


def read(environment: dict[str, str]) -> Settings:
    """As a process of the platform would understand it."""
    return Settings(_env_file=None, **{name.lower(): value for name, value in environment.items()})  # type: ignore[call-arg,arg-type]


def customer(settings: Settings, name: str) -> Customer:
    """Who uses the account that the settings describe."""
    secrets: dict[str, Any] = {
        "midjourney": {"api_secret": settings.midjourney_api_secret},
        "kling": {"api_key": settings.kling_api_key},
        "jimeng": {"access_key": settings.jimeng_access_key, "secret_key": settings.jimeng_secret_key},
        "bfl": {"api_key": settings.bfl_api_key},
        "fal": {"key": settings.fal_key},
    }
    plain = {key: value.get_secret_value() for key, value in secrets[name].items()}
    return Customer(name, getattr(settings, f"{name}_base_url"), plain)


def test_a_job_at_each_provider(world: World) -> None:
    settings = read(world.environment())
    assert settings.allow_private_addresses
    assert settings.storage == "local"
    for name, model in JOBS.items():
        with customer(settings, name) as somebody:
            verdict, _ = somebody.made(model, f"at {name}")
            assert isinstance(verdict, Succeeded)
            made = [somebody.ask("GET", output.url or "").body for output in verdict.outputs]
        assert made == world.made_for(f"at {name}")
        assert made
        assert world.submits(f"at {name}") == 1
    assert world.created() == dict.fromkeys(JOBS, 1)
    assert world.submits("never asked for") == 0
    assert world.media.leaks == []


def test_flux_through_one_service(world: World) -> None:
    assert not read(world.environment(flux=["fal"])).bfl_api_key.get_secret_value()
    assert not read(world.environment(flux=["bfl"])).fal_key.get_secret_value()


def test_storage_in_cos(world: World, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(b"picture")
    storage = new_storage(read(world.environment(storage="cos")))
    storage.put("a.png", path, "image/png")
    assert storage.url("a.png") == f"{world.cos.url}/a.png"
    assert urllib.request.urlopen(storage.url("a.png"), timeout=5).read() == b"picture"


def test_behaving_again(world: World) -> None:
    for simulator in world.simulators:
        simulator.misbehave(Fault("answer", times=1_000))
    world.behave()
    with customer(read(world.environment()), "bfl") as somebody:
        assert isinstance(somebody.made(JOBS["bfl"], "x")[0], Succeeded)


@pytest.mark.parametrize("name", JOBS)
def test_out_of_money(world: World, name: str) -> None:
    with customer(read(world.environment()), name) as somebody:
        with world.out_of_money(name):
            verdict = somebody.submit(JOBS[name], "x")
            assert isinstance(verdict, NotAccepted), verdict
            # Volcengine says the same of a debt as of a missing permission.
            assert verdict.trouble is (Trouble.CREDENTIALS if name == "jimeng" else Trouble.BALANCE)
            assert world.submits("x") == 0
        assert isinstance(somebody.made(JOBS[name], "x")[0], Succeeded)


def test_other_limits() -> None:
    with World(at_once=500) as world:
        assert {provider.account.at_once for provider in world.providers} == {500}
        settings = read(world.environment())
        assert {getattr(settings, f"{name}_max_concurrency") for name in JOBS} == {500}


def test_a_process_of_its_own(tmp_path: Path) -> None:
    ports, log = tmp_path / "ports.json", tmp_path / "log"
    command = [sys.executable, "-m", "tests.simulators", "--ports-file", str(ports), "--storage", "cos"]
    command += ["--image", "0.02,0.05", "--at-once", "100", "--cos-folder", str(tmp_path / "cos")]
    process = spawn(command, log=log, cwd=ROOT, environment=clean_environment())
    try:
        wait_until(lambda: ports.exists() or process.poll() is not None, 20, what="the settings are written")
        assert ports.exists(), tail(log)
        settings = read(json.loads(ports.read_text()))
        assert (settings.storage, settings.bfl_max_concurrency) == ("cos", 100)
        with customer(settings, "bfl") as somebody:
            verdict, _ = somebody.made(JOBS["bfl"], "x")
            assert isinstance(verdict, Succeeded)
            assert somebody.ask("GET", verdict.outputs[0].url or "").body[:2] == b"\xff\xd8"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0, tail(log)
        assert log.read_text() == ""
    finally:
        process.kill()
        process.wait(5)
