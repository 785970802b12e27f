"""Every provider API and every model. A new provider is one file and one line here."""

from __future__ import annotations

from collections.abc import Sequence

from common.providers import bfl, fal, flux, jimeng, kling, kling_models, midjourney
from common.providers.base import Adapter, Credentials, ModelSpec

_PROVIDERS: Sequence[tuple[tuple[ModelSpec, ...], tuple[type[Adapter], ...]]] = (
    (midjourney.MODELS, (midjourney.Midjourney,)),
    (kling_models.MODELS, (kling.Kling,)),
    (jimeng.MODELS, (jimeng.Jimeng,)),
    (flux.MODELS, (bfl.Bfl, fal.Fal)),
)

ADAPTERS: dict[str, type[Adapter]] = {
    adapter.name: adapter for _, adapters in _PROVIDERS for adapter in adapters
}
MODELS: dict[str, ModelSpec] = {spec.id: spec for specs, _ in _PROVIDERS for spec in specs}


def adapters_for(model_id: str) -> tuple[str, ...]:
    """The names of the APIs that serve a model; none for an unknown one."""
    return tuple(name for name, adapter in ADAPTERS.items() if model_id in adapter.models)


def adapter_for(name: str, credentials: Credentials) -> Adapter:
    """The adapter of one account. Raises KeyError for a name that is not in ADAPTERS."""
    return ADAPTERS[name](credentials)
