"""Every provider API and every model. A new provider is one file and one line here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.providers import (
    bfl,
    fal,
    flux,
    jimeng,
    jimeng_models,
    kling,
    kling_models,
    midjourney,
    midjourney_models,
)
from common.providers.base import Adapter, Credentials, ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One outside service: what may be called there, through which APIs, and what is peculiar about it."""

    title: str
    models: Sequence[ModelSpec]
    adapters: Sequence[type[Adapter]]
    quirks: Sequence[str]


PROVIDERS: dict[str, Provider] = {
    "midjourney": Provider(title="Midjourney", models=midjourney_models.MODELS, adapters=(midjourney.Midjourney,),
                           quirks=midjourney_models.QUIRKS),
    "kling": Provider(title="Kling", models=kling_models.MODELS, adapters=(kling.Kling,), quirks=kling.QUIRKS),
    "jimeng": Provider(title="Jimeng", models=jimeng_models.MODELS, adapters=(jimeng.Jimeng,),
                       quirks=jimeng_models.QUIRKS),
    "flux": Provider(title="Flux", models=flux.MODELS, adapters=(bfl.Bfl, fal.Fal), quirks=flux.QUIRKS),
}  # fmt: skip

ADAPTERS: dict[str, type[Adapter]] = {}
MODELS: dict[str, ModelSpec] = {}


def register(name: str, provider: Provider) -> None:
    """Make a provider known, its APIs and its models with it."""
    PROVIDERS[name] = provider
    ADAPTERS.update((adapter.name, adapter) for adapter in provider.adapters)
    MODELS.update((spec.id, spec) for spec in provider.models)


for _name, _provider in list(PROVIDERS.items()):
    register(_name, _provider)


def adapters_for(model_id: str) -> tuple[str, ...]:
    """The names of the APIs that serve a model; none for an unknown one."""
    return tuple(name for name, adapter in ADAPTERS.items() if model_id in adapter.models)


def adapter_for(name: str, credentials: Credentials) -> Adapter:
    """The adapter of one account. Raises KeyError for a name that is not in ADAPTERS."""
    return ADAPTERS[name](credentials)
