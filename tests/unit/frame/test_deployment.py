"""What hosts read: Procfile, docker-compose.yaml, Dockerfile, app.json."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from common.settings import Settings
from tests.infrastructure.environment import ROOT
from tests.infrastructure.processes import read_procfile
from tests.unit.frame.test_env_example import BESIDE_SETTINGS

SERVING = ["web", "worker", "beat"]
PROCFILE = read_procfile()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
APP: dict[str, Any] = json.loads((ROOT / "app.json").read_text())


def seconds(text: str) -> int:
    return int(text[:-1]) * {"s": 1, "m": 60}[text[-1]]


# ---------------------------------------------------------------- Procfile


def test_the_procfile_has_the_four_processes() -> None:
    assert list(PROCFILE) == ["release", *SERVING]
    assert PROCFILE["release"] == "python -m migrations upgrade"


def test_the_worker_talks_to_no_other_worker() -> None:
    for flag in ("-P prefork", "--without-mingle", "--without-gossip", "--without-heartbeat"):
        assert flag in PROCFILE["worker"]


def test_beat_leaves_no_file() -> None:
    assert "--pidfile=" in PROCFILE["beat"].split()
    assert not re.search(r"\s(-s|--schedule)", PROCFILE["beat"])


# ---------------------------------------------------------------- docker compose


def test_compose_runs_the_procfiles_commands() -> None:
    commands = {name: SERVICES[name]["command"] for name in ("migrate", *SERVING)}
    assert commands == {"migrate": PROCFILE["release"], **{name: PROCFILE[name] for name in SERVING}}


def test_nothing_serves_before_the_upgrade_has_succeeded() -> None:
    assert SERVICES["migrate"]["restart"] == "no"
    assert "healthcheck" not in SERVICES["migrate"]
    for name in SERVING:
        assert SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
        assert SERVICES[name]["restart"] == "unless-stopped"


def test_the_upgrade_waits_for_its_servers() -> None:
    for name in ("postgres", "valkey"):
        assert SERVICES["migrate"]["depends_on"][name] == {"condition": "service_healthy"}
        assert "healthcheck" in SERVICES[name]


def test_valkey_forgets_nothing_by_itself() -> None:
    command = SERVICES["valkey"]["command"]
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_data_are_in_named_volumes() -> None:
    used = {volume.partition(":")[0] for service in SERVICES.values() for volume in service["volumes"]}
    assert used == set(COMPOSE["volumes"]) == {"data", "postgres", "valkey"}
    assert SERVICES["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]


def test_there_is_time_to_stop() -> None:
    for name in ("migrate", *SERVING):
        assert seconds(SERVICES[name]["stop_grace_period"]) >= 10


def test_the_env_file_is_optional_and_the_addresses_are_not_in_it() -> None:
    for name in ("migrate", *SERVING):
        assert SERVICES[name]["env_file"] == [{"path": ".env", "required": False}]
        assert {"DATABASE_URL", "REDIS_URL"} <= set(SERVICES[name]["environment"])


@pytest.mark.parametrize("name", ["valkey", "postgres"])
def test_images_are_pinned(name: str) -> None:
    assert re.fullmatch(r"[a-z/]+:\d+\.\d+(\.\d+)?", SERVICES[name]["image"])


# ---------------------------------------------------------------- Dockerfile, app.json


def test_the_image_runs_as_nobody_in_particular_and_installs_nothing_at_start() -> None:
    run = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    assert re.search(r"^USER wxiai$", run, re.M)
    assert "ENTRYPOINT" not in run
    command = json.loads(re.findall(r"^CMD (.*)$", run, re.M)[-1])
    assert " ".join(command) == PROCFILE["web"]


def test_the_image_can_make_backups_of_composes_postgresql() -> None:
    """pg_dump refuses a server newer than itself."""
    text = (ROOT / "Dockerfile").read_text()
    assert f"\nFROM {SERVICES['postgres']['image']} AS postgres\n" in text
    assert (
        f"/usr/lib/postgresql/{SERVICES['postgres']['image'].partition(':')[2].partition('.')[0]}/bin" in text
    )
    assert "for name in pg_dump pg_restore psql;" in text.rpartition("\nFROM ")[2]


def test_app_json_starts_every_process() -> None:
    assert set(APP["formation"]) == set(SERVING)
    assert {addon.partition(":")[0] for addon in APP["addons"]} == {"heroku-postgresql", "heroku-redis"}


def test_app_json_sets_only_what_there_is() -> None:
    known = {name.upper() for name in Settings.model_fields} | BESIDE_SETTINGS
    assert set(APP["env"]) <= known
    assert APP["env"]["APP_ENV"]["value"] == "production"
    assert APP["env"]["SECRET_KEY"]["generator"] == "secret"
