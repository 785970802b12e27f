"""All configuration, read once from the environment and frozen. `.env.example` lists the same names."""

from __future__ import annotations

import os
import re
import secrets
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from common.providers.callbacks import shared_key

Concurrency = Annotated[int, Field(ge=1, le=1_000_000)]
_SQLALCHEMY_DRIVER = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "sqlite": "sqlite",
}
_ORIGIN = re.compile(r"https?://([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.IGNORECASE)


class BadSettings(SystemExit):
    """A setting has an unusable value: the process says which, in one line, and exits."""


class Settings(BaseSettings):
    """Every setting of every process."""

    model_config = SettingsConfigDict(
        env_file=".env", frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    # The parts every process needs.
    app_env: Literal["development", "production"] = "development"
    database_url: str = "sqlite:///data/webui.db"  # SQLite or PostgreSQL; Heroku's postgres:// works
    redis_url: str = "redis://127.0.0.1:6379/0"  # broker, lock, rate limits, live events; Redis or Valkey
    secret_key: SecretStr = SecretStr("")  # sessions, encryption of stored credentials
    public_url: str = "http://127.0.0.1:8000"  # base of media URLs and provider callbacks

    # Migrations, and how much older a schema may be.
    enable_auto_migration: bool = True  # processes upgrade (or wait for) the schema at start
    migration_timeout: Annotated[float, Field(gt=0)] = (
        30.0  # seconds without a sign of life of the upgrading process
    )
    enable_fallback_create: bool = True  # last rung of the ladder
    enable_backward_compatibility: bool = True  # models tolerate missing columns
    log_compatibility_warnings: bool = True  # one warning per missing column and process
    migration_backup: Literal["auto", "required", "off"] = "auto"
    migration_backup_cmd: str = ""  # replaces pg_dump; writes to "$BACKUP_FILE"

    # The first admin, created once on a fresh database.
    admin_email: str = ""
    admin_password: SecretStr = SecretStr("")
    admin_api_token: SecretStr = SecretStr("")

    # Storage of results.
    storage: Literal["local", "cos"] = "local"
    media_dir: Path = Path("data/media")  # local storage, served at /media/…
    cos_region: str = ""
    cos_bucket: str = ""  # name-appid
    cos_secret_id: SecretStr = SecretStr("")
    cos_secret_key: SecretStr = SecretStr("")
    cos_token: SecretStr = SecretStr("")  # STS
    cos_domain: str = ""  # API host override: acceleration, tests
    cos_scheme: Literal["http", "https"] = "https"
    cos_public_url: str = ""  # custom or CDN domain that users fetch from
    cos_signed_url_s: Annotated[int, Field(ge=0)] = 0  # > 0: URLs are signed on every read for that long

    # One `env` account per provider API, synchronised at start.
    midjourney_base_url: str = ""  # root of a midjourney-proxy-compatible server
    midjourney_api_secret: SecretStr = SecretStr("")
    midjourney_max_concurrency: Concurrency | None = None
    kling_base_url: str = ""
    kling_access_key: SecretStr = SecretStr("")
    kling_secret_key: SecretStr = SecretStr("")
    kling_api_key: SecretStr = SecretStr("")
    kling_webhook_secret: SecretStr = SecretStr("")  # signs Kling's callbacks
    kling_max_concurrency: Concurrency | None = None
    jimeng_base_url: str = ""
    jimeng_access_key: SecretStr = SecretStr("")
    jimeng_secret_key: SecretStr = SecretStr("")
    jimeng_max_concurrency: Concurrency | None = None
    bfl_base_url: str = ""
    bfl_api_key: SecretStr = SecretStr("")
    bfl_max_concurrency: Concurrency | None = None
    fal_base_url: str = ""
    fal_key: SecretStr = SecretStr("")
    fal_max_concurrency: Concurrency | None = None

    # The engine.
    lease_s: Annotated[float, Field(gt=0)] = 60.0  # a claim older than this belongs to nobody
    reconcile_window_s: Annotated[float, Field(ge=0)] = 120.0  # how long an unknown submit is looked for
    source_patience_s: Annotated[float, Field(ge=0)] = 30.0  # how long a result's address may refuse
    poll_interval_s: Annotated[float, Field(ge=0)] = 0.0  # > 0 overrides every model's own rhythm
    tick_s: Annotated[float, Field(gt=0)] = 1.0  # beat: due work
    sweep_s: Annotated[float, Field(gt=0)] = 5.0  # beat: forgotten work
    retention_days: Annotated[int, Field(ge=0)] = 0  # > 0: results are removed so long after they were stored
    job_deadline_s: Annotated[float, Field(gt=0)] = 3600.0  # default deadline of a job
    webhook_schedule_s: Annotated[tuple[float, ...], NoDecode] = (
        0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400,
    )  # fmt: skip
    cancel_charge: Literal["full", "none"] = "full"  # once the provider has accepted and cannot cancel

    # The door.
    allow_private_addresses: bool = (
        False  # webhooks, downloads, input and polling URLs may be loopback or private
    )
    rate_limit_submits: str = "600/minute"  # per user
    max_body_bytes: Annotated[int, Field(gt=0)] = 33_554_432
    cors_origins: Annotated[
        tuple[str, ...], NoDecode
    ] = ()  # pages of just these may call from a browser; *: all

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, url: str) -> str:
        scheme, separator, rest = url.partition("://")
        if not separator or scheme.partition("+")[0] not in _SQLALCHEMY_DRIVER:
            raise ValueError("must start with sqlite://, postgres:// or postgresql://")
        return f"{_SQLALCHEMY_DRIVER[scheme.partition('+')[0]]}://{rest}"

    @field_validator("redis_url")
    @classmethod
    def _known_broker(cls, url: str) -> str:
        if not re.match(r"(redis|rediss|unix)://", url):
            raise ValueError("must start with redis:// or rediss://")
        return url

    @field_validator("public_url", "cos_public_url", "midjourney_base_url", "kling_base_url", "jimeng_base_url",
                     "bfl_base_url", "fal_base_url")  # fmt: skip
    @classmethod
    def _web_address(cls, url: str) -> str:
        if url and not re.match(r"https?://[^/\s]+", url):
            raise ValueError("must be an http:// or https:// address")
        return url.rstrip("/")

    @field_validator("kling_webhook_secret")
    @classmethod
    def _shared_key(cls, secret: SecretStr) -> SecretStr:
        if secret.get_secret_value() and shared_key(secret.get_secret_value()) is None:
            raise ValueError("must be the secret as the console shows it: whsec_ and base64")
        return secret

    @field_validator("webhook_schedule_s", mode="before")
    @classmethod
    def _delays(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            delays = tuple(float(part) for part in value.split(","))
        except ValueError:
            raise ValueError("must be numbers of seconds, separated by commas") from None
        if any(delay < 0 for delay in delays):
            raise ValueError("must not be negative")
        return delays

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _origins(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        origins = tuple(part.strip().rstrip("/") for part in value.split(",") if part.strip())
        if wrong := [each for each in origins if not _ORIGIN.fullmatch(each) and origins != ("*",)]:
            raise ValueError(f"{wrong[0]!r} must look like https://app.example.com (or * alone: all)")
        return origins

    @field_validator("rate_limit_submits")
    @classmethod
    def _rate(cls, value: str) -> str:
        if not re.fullmatch(r"[1-9]\d*/(second|minute|hour|day)", value):
            raise ValueError("must look like 600/minute")
        return value

    @model_validator(mode="after")
    def _production(self) -> Settings:
        if self.app_env == "production" and not self.secret_key.get_secret_value():
            raise ValueError("SECRET_KEY is required when APP_ENV=production")
        if self.storage == "cos":
            required = ("cos_bucket", "cos_secret_id", "cos_secret_key")
            missing = [name.upper() for name in required if not _text(getattr(self, name))]
            if not (self.cos_region or self.cos_domain):
                missing.append("COS_REGION")
            if missing:
                raise ValueError(f"{missing[0]} is required when STORAGE=cos")
        return self

    @property
    def submits_a_minute(self) -> float:
        """RATE_LIMIT_SUBMITS as a pace."""
        amount, _, window = self.rate_limit_submits.partition("/")
        return int(amount) / {"second": 1 / 60, "minute": 1, "hour": 60, "day": 1440}[window]

    @property
    def is_sqlite(self) -> bool:
        return self.database_url.startswith("sqlite")

    def is_reachable(self, url: str) -> bool:
        """Whether a provider can ask for an address of ours: for a private one only if those are allowed."""
        return self.allow_private_addresses or not _is_private(urlsplit(url).hostname or "")


def _is_private(host: str) -> bool:
    try:
        return not ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".localhost", ".local", ".internal"))


def _text(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


@cache
def settings() -> Settings:
    """The settings of this process. Raises BadSettings, which names the variable and never shows its value."""
    try:
        return Settings()
    except ValidationError as error:
        raise BadSettings("\n".join(_line(item) for item in error.errors())) from None


def _line(item: object) -> str:
    assert isinstance(item, dict)
    name = "_".join(str(part) for part in item["loc"][:1]).upper()
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"settings: {name}: {message}" if name else f"settings: {message}"


@cache
def secret_key() -> str:
    """SECRET_KEY, or in development one that is generated once and kept beside the data."""
    given = settings().secret_key.get_secret_value()
    return given or _generated_secret(Path("data") / "secret_key")


def _generated_secret(path: Path) -> str:
    """Read the kept secret, or write a new one so that of several processes starting at once exactly one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(48))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()
