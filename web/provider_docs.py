"""`docs/providers.md`, made from the catalogue, so that it is true.

`python -m web.provider_docs --write` renews it; `--check` fails when it is out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from common.providers.base import Adapter, JsonObject, ModelSpec, Trouble
from common.providers.inputs import media_fields
from common.providers.registry import PROVIDERS, Provider
from common.words import ErrorCode

COPY = Path(__file__).parents[1] / "docs" / "providers.md"
_BEGINNING = """\
# Providers and models

Made from the catalogue by `python -m web.provider_docs --write`. Prices are the defaults, in credits; what a job would
cost is told by `POST /v1/quotes`, what an input may hold exactly by `GET /v1/models/{provider}/{name}`.

A medium in an input (marked *medium*) is an https address, a data URL, base64 or the id of an upload; a film or a
sound an address or an upload. How a provider is added: [adding-a-provider.md](adding-a-provider.md).
"""
_SETTINGS = {
    "midjourney": "`MIDJOURNEY_BASE_URL` (required), `MIDJOURNEY_API_SECRET`",
    "kling": "`KLING_ACCESS_KEY` and `KLING_SECRET_KEY`, or `KLING_API_KEY`; `KLING_WEBHOOK_SECRET`",
    "jimeng": "`JIMENG_ACCESS_KEY`, `JIMENG_SECRET_KEY`",
    "bfl": "`BFL_API_KEY`",
    "fal": "`FAL_KEY`",
}
_CALLBACKS = {
    "midjourney": "`notifyHook`, at every change",
    "kling": "at every change; checked where `KLING_WEBHOOK_SECRET` is set",
    "jimeng": "4.0 and 4.6 only",
    "bfl": "at a regional `BFL_BASE_URL` only",
    "fal": "at the end; its signature is checked",
}
_MEANINGS: dict[str, str] = {
    ErrorCode.SUBMIT_UNKNOWN: "the job is looked for there, else `submit_unknown`",
    Trouble.BUSY: "the account waits as long as it says, the job is tried again",
    Trouble.DOWN: "the job is tried again; five in a row pause the account",
    Trouble.MODEL: "another account, else `provider_unavailable`",
    Trouble.CREDENTIALS: "the account pauses; another one, else `provider_unavailable`",
    Trouble.BALANCE: "the account pauses; another one, else `account_exhausted`",
    Trouble.INPUT: "the job is tried again",
}
# By code: whether the same job may well succeed another time, and what it is about.
_ERRORS = {
    ErrorCode.INVALID_INPUT: (
        "no",
        "The provider, or the fetching of a medium, found fault with the input. Change it.",
    ),
    ErrorCode.CONTENT_MODERATED: (
        "no, unless it was chance",
        "The prompt, a picture or the result was stopped by moderation. Change the input.",
    ),
    ErrorCode.PROVIDER_REJECTED: (
        "no",
        "The provider refused it for a reason of its own, e.g. a parent it has forgotten.",
    ),
    ErrorCode.PROVIDER_UNAVAILABLE: (
        "yes",
        "No account could take it: a wrong or revoked key, no permission. The operator is told.",
    ),
    ErrorCode.ACCOUNT_EXHAUSTED: (
        "yes",
        "The operator's money or quota at the provider is used up. The account pauses.",
    ),
    ErrorCode.PROVIDER_FAILED: ("mostly", "The generation failed at the provider. Often worth another try."),
    ErrorCode.SUBMIT_UNKNOWN: (
        "yes",
        "The provider never said whether it took the job, and it could not be found there.",
    ),
    ErrorCode.TIMEOUT: (
        "yes",
        "Nobody took or finished it before its deadline. A late result is still kept.",
    ),
    ErrorCode.STORAGE_FAILED: (
        "yes",
        "What was made could not be fetched while its address lived, or was no media.",
    ),
    ErrorCode.CANCELED: ("no", "The user canceled it."),
    ErrorCode.INTERNAL: ("no", "Our fault, before the provider was asked."),
}


def text() -> str:
    """The whole document."""
    parts = [_BEGINNING, *(_about(name, provider) for name, provider in PROVIDERS.items()), _errors()]
    return "\n".join(parts)


def _about(name: str, provider: Provider) -> str:
    lines = [f"## {provider.title}", ""]
    lines += [
        "| API | settings | at once | callbacks | finds lost submits | address |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_api(adapter) for adapter in provider.adapters]
    lines += ["", *(f"- {quirk}" for quirk in provider.quirks), ""]
    for adapter in provider.adapters:
        lines += _codes(adapter)
    for spec in provider.models:
        lines += [*_model(spec, provider), ""]
    return "\n".join(lines)


def _api(adapter: type[Adapter]) -> str:
    name = adapter.name
    finds = (
        "by its reference" if adapter.can_find else "by its callback" if adapter.finds_by_callback else "no"
    )
    limit = f"{adapter.max_concurrency}, `{name.upper()}_MAX_CONCURRENCY`"
    cells = [f"`{name}`", _SETTINGS.get(name, ""), limit, _CALLBACKS.get(name, "no"), finds]
    return f"| {' | '.join(cells)} | {adapter.official_url or 'your own server'} |"


def _codes(adapter: type[Adapter]) -> list[str]:
    """What the API's own codes mean, those of one meaning in a row."""
    by_meaning: dict[str, list[str]] = {}
    for code, means in adapter.codes().items():
        by_meaning.setdefault(_MEANINGS.get(means, f"`{means}`"), []).append(str(code))
    if not by_meaning:
        return []
    rows = [f"| {', '.join(codes)} | {told} |" for told, codes in by_meaning.items()]
    return [f"| `{adapter.name}` says | here |", "|---|---|", *rows, ""]


def _model(spec: ModelSpec, provider: Provider) -> Iterator[str]:
    yield f"### `{spec.id}`"
    yield ""
    yield f"{spec.title}: makes {_KINDS[spec.kind]}, typically in {spec.expected_s:g} s. {_price(spec)}"
    yield _rhythm(spec)
    if spec.follows:
        instead = f", or `{spec.parent_or}`" if spec.parent_or else ""
        yield f"Continues a job of {', '.join(f'`{model}`' for model in spec.follows)} (`parent_id`{instead})."
    only = [adapter.name for adapter in provider.adapters if spec.id in adapter.models]
    if len(only) < len(provider.adapters):
        yield f"Only through {', '.join(f'`{name}`' for name in only)}."
    yield ""
    yield "| input | takes | default | |"
    yield "|---|---|---|---|"
    required = spec.input_schema.get("required", ())
    media = media_fields(spec.input_schema)
    for name, field in spec.input_schema["properties"].items():
        marks = ("**", "**") if name in required else ("", "")
        shown = "*medium*" if name in media else _takes(field)
        default = f"`{field['default']}`" if "default" in field else ""
        yield f"| {marks[0]}`{name}`{marks[1]} | {shown} | {default} | {_cell(field.get('description', ''))} |"


def _rhythm(spec: ModelSpec) -> str:
    deadline = f"{spec.deadline_s:g} s" if spec.deadline_s else "`JOB_DEADLINE_S`"
    slots = f" Takes as many of the account's places as `{spec.slots}` says." if spec.slots else ""
    looks = f"Looked at after {spec.first_poll_s:g} s, then every {spec.poll_every_s:g} s"
    return f"{looks}; ends after {deadline} at the latest.{slots}"


_KINDS = {"image": "pictures", "video": "a film", "audio": "a sound", "text": "words"}


def _price(spec: ModelSpec) -> str:
    price = spec.price
    each = f" for each `{price['times']}`" if "times" in price else ""
    if "table" not in price:
        all_of_it = ", all of it" if each and "plus" in price else ""
        return f"Costs {price['credits']} credits{_plus(price)}{all_of_it}{each}."
    by = " / ".join(f"`{name}`" for name in price["by"])
    table = ", ".join(f"{key} {credits}" for key, credits in price["table"].items())
    other = f"; otherwise {price['credits']}" if "credits" in price else ""
    return f"Costs, by {by}{each}: {table}{other}{_plus(price)}."


def _plus(price: JsonObject) -> str:
    return "".join(
        f", and {credits} more for each of `{name}`" for name, credits in price.get("plus", {}).items()
    )


def _takes(field: JsonObject) -> str:
    """A field's type and bounds in a few words."""
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    kind = field.get("type", "")
    if kind in ("integer", "number"):
        return f"{kind}, {field.get('minimum', '…')} to {field.get('maximum', '…')}"
    if kind == "array":
        return f"{field.get('minItems', 0)} to {field.get('maxItems', '…')} items"
    if kind == "string" and "maxLength" in field:
        return f"text, at most {field['maxLength']} characters"
    return str(kind)


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")


def _errors() -> str:
    lines = ["## Why a job fails", "", _ABOUT_ERRORS, "", "| `error.code` | `retryable` | |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| `{code}` | {' | '.join(_ERRORS[code])} |" for code in ErrorCode), ""])


_ABOUT_ERRORS = """\
A failed job costs nothing. `error.message` has the provider's own words, trimmed; `retryable` says whether the same
job, submitted again, may well succeed. Where a provider is busy or away, and where moderation struck by chance, the
platform has tried again by itself before it says so."""


def main(arguments: list[str]) -> int:
    """`--write` renews the document, `--check` compares it."""
    fresh = text()
    if arguments == ["--write"]:
        COPY.write_text(fresh)
        return 0
    if arguments != ["--check"]:
        print("usage: python -m web.provider_docs --check | --write", file=sys.stderr)
        return 2
    if COPY.exists() and COPY.read_text() == fresh:
        return 0
    print("docs/providers.md is out of date: run `python -m web.provider_docs --write`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
