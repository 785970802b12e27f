"""What requests may hold. Strict: no unknown fields, no numbers in quotes."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from common.addresses import AddressRefused, check_url
from common.ids import ID_LENGTH
from common.services.credits import MAX_AMOUNT, MAX_WEIGHT
from common.services.jobs import LONGEST_DEADLINE_S
from common.settings import settings
from common.words import Delivery, EventType, Status

METADATA_BYTES = 16_384
_LONGEST_URL = 2000
_MOST_EVENT_TYPES = 50  # some may be named twice
EXAMPLE_ULID = "01kb3q9z6w8x4y2v7t5r3s1p0n"  # of nothing: ids in examples end so
_JOB = f"job_{EXAMPLE_ULID}"


class Body(BaseModel):
    """A request body."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Query(BaseModel):
    """Query parameters: all text. Those with an example are shown in samples."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _example(**fields: Any) -> ConfigDict:
    """What the API's document and its samples (`web.samples`) show of a body; what is inherited may be replaced."""
    return ConfigDict(json_schema_extra={"examples": [fields]})


# ---------------------------------------------------------------- fields


def _web_url(url: str) -> str:
    try:
        check_url(url, allow_private=settings().allow_private_addresses)
    except AddressRefused as error:
        raise ValueError(f"must be an http:// or https:// address that can be called: {error}") from None
    return url


def _written(value: object) -> object:
    """As RFC 3339 has it; a mere number would be taken for seconds."""
    if not (isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\dT", value, re.IGNORECASE | re.ASCII)):
        raise ValueError("must be a moment like 2026-11-24T20:00:00Z")
    return value


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a moment of the years 1 to 9999 in UTC") from None


def _small(metadata: dict[str, Any]) -> dict[str, Any]:
    if len(json.dumps(metadata, ensure_ascii=False).encode()) > METADATA_BYTES:
        raise ValueError(f"must not exceed {METADATA_BYTES} bytes")
    return metadata


def _whole(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(r"[0-9]{1,9}", value):
        raise ValueError("must be a whole number")
    return value


def _event_types(value: object) -> object:
    """Names as they are in JSON; strictness would want the enumeration's own members."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        known = {str(each): each for each in EventType}
        return [known.get(item, item) for item in value]
    return value


def _each_once(values: list[EventType]) -> list[EventType]:
    return list(dict.fromkeys(values))


def _id(prefix: str) -> Any:
    pattern = rf"^{prefix}_[0-9a-z]{{{ID_LENGTH - len(prefix) - 1}}}$"
    return Annotated[str, Field(pattern=pattern, description=f"An id that starts with {prefix}_")]


WebUrl = Annotated[
    str, Field(max_length=_LONGEST_URL, json_schema_extra={"format": "uri"}), AfterValidator(_web_url)
]
Metadata = Annotated[dict[str, Any], AfterValidator(_small)]
Priority = Annotated[int, Field(ge=-100, le=100)]
Deadline = Annotated[float, Field(ge=1, le=LONGEST_DEADLINE_S)]
Limit = Annotated[int, Field(ge=1, le=100, examples=[20]), BeforeValidator(_whole)]
Name = Annotated[str, Field(min_length=1, max_length=255)]
Email = Annotated[str, Field(min_length=3, max_length=255)]
RoleName = Literal["admin", "user", "pending"]
Anything = Annotated[Any, Field(description="An object that fits the model's input_schema")]


# ---------------------------------------------------------------- jobs


_TOLD = (
    "Who is told when the job ends. The event holds the job; a picture that its input gave inline is only named there, "
    "by its beginning and its length"
)


class JobOptions(Body):
    """What may be said about a job besides its model and input."""

    webhook_url: Annotated[WebUrl | None, Field(description=_TOLD)] = None
    metadata: Metadata | None = None
    priority: Priority = 0
    deadline_s: Deadline | None = None


class NewJob(JobOptions):
    """A job to run."""

    model_config = _example(
        model="flux/pro-1.1", input={"prompt": "a red fox in snow"}, webhook_url="https://example.com/hook"
    )

    model: Annotated[str, Field(max_length=128, examples=["flux/pro-1.1"])]
    input: Anything
    parent_id: Annotated[str, Field(max_length=64)] | None = None


class NewQuote(NewJob):
    """A job whose price is asked for; only model and input count."""

    model_config = _example(model="flux/pro-1.1", input={"prompt": "a red fox in snow"})


class JobsQuery(Query):
    """Which jobs to list."""

    status: Annotated[Status | None, Field(examples=["succeeded"])] = None
    model: Annotated[str, Field(max_length=128)] | None = None
    limit: Limit = 20
    after: _id("job") | None = None  # type: ignore[valid-type]


class UploadsQuery(Query):
    """Which uploads to list."""

    kind: Annotated[Literal["image", "video", "audio"] | None, Field(examples=["image"])] = None
    limit: Limit = 20
    after: _id("upl") | None = None  # type: ignore[valid-type]


class LedgerQuery(Query):
    """Which ledger entries to list."""

    limit: Limit = 20
    after: _id("led") | None = None  # type: ignore[valid-type]


class PageQuery(Query):
    """Which part of a list to show."""

    limit: Limit = 20
    after: Annotated[str, Field(min_length=1, max_length=255)] | None = None


# ---------------------------------------------------------------- schedules


class NewSchedule(Body):
    """A job to submit by the clock: give either `cron` or `interval_s`."""

    model_config = _example(
        name="a fox every morning",
        cron="30 9 * * MON-FRI",
        timezone="Europe/Berlin",
        job={"model": "flux/pro-1.1", "input": {"prompt": "a red fox in snow"}},
    )

    name: Annotated[str, Field(max_length=255)] = ""
    cron: Annotated[str, Field(max_length=255, examples=["30 9 * * MON-FRI"])] | None = None
    interval_s: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    timezone: Annotated[str, Field(max_length=64, examples=["Europe/Berlin"])] = "UTC"
    job: NewJob
    enabled: bool = True
    catch_up: Annotated[bool, Field(description="Whether runs that were missed are made up for by one")] = (
        True
    )


class ScheduleChange(NewSchedule):
    """What to change about a schedule; what is absent stays."""

    model_config = _example(cron="0 18 * * *", enabled=True)

    job: NewJob = NewJob(model="", input={})


# ---------------------------------------------------------------- the OpenAI dialect


class OpenAIBody(Body):
    """What a form or the SDK sends; what we do not know here is the model's own input."""

    model_config = ConfigDict(extra="allow", strict=False, frozen=True)

    model: Annotated[str, Field(max_length=128, examples=["flux/pro-1.1"])]
    prompt: Annotated[str, Field(max_length=32_000)]
    size: Annotated[str, Field(max_length=16, examples=["1024x1024"])] | None = None
    user: Annotated[str, Field(max_length=255, description="Not used")] | None = None
    safety_identifier: Annotated[str, Field(max_length=255, description="Not used")] | None = None


class OpenAIImage(OpenAIBody):
    """Pictures to make."""

    model_config = _example(model="flux/pro-1.1", prompt="a red fox in snow", size="1024x768")

    n: Annotated[int, Field(ge=1, le=10)] = 1
    response_format: Literal["url", "b64_json"] = "url"
    output_format: Annotated[str, Field(max_length=16)] | None = None


class OpenAIImageEdit(OpenAIImage):
    """Pictures to make from pictures."""

    model_config = _example(
        model="flux/kontext-pro", prompt="the same fox at night", image="https://example.com/fox.png"
    )

    image: str | list[str]
    mask: str | None = None


class OpenAIVideo(OpenAIBody):
    """A film to make."""

    model_config = _example(
        model="kling/text-to-video", prompt="a red fox runs through snow", size="1280x720"
    )

    seconds: Annotated[str, Field(max_length=8, examples=["5"])] | None = None
    input_reference: str | dict[str, Any] | None = None


class OpenAIRemix(Body):
    """Another prompt for a film."""

    model_config = _example(prompt="a red fox runs through rain")

    prompt: Annotated[str, Field(min_length=1, max_length=32_000)]


class OpenAIVideosQuery(Query):
    """Which films to list."""

    limit: Limit = 20
    after: _id("job") | None = None  # type: ignore[valid-type]
    order: Literal["asc", "desc"] = "desc"


class OpenAIContentQuery(Query):
    """What of a film to fetch."""

    variant: Literal["video", "thumbnail", "spritesheet"] = "video"


# ---------------------------------------------------------------- the Midjourney dialect


class MidjourneyBody(Body):
    """What every submit may hold; fields of servers that we are not are left aside."""

    model_config = ConfigDict(extra="ignore", strict=False, frozen=True)

    state: Annotated[str, Field(max_length=255, description="Comes back with the task")] | None = None
    notifyHook: WebUrl | Literal[""] | None = None  # noqa: N815 - the protocol's own names


class MidjourneyFilter(Body):
    """Which of such a server's accounts to take: of that, the speed."""

    model_config = ConfigDict(extra="ignore", strict=False, frozen=True)

    modes: Annotated[list[Annotated[str, Field(max_length=32)]], Field(max_length=10)] | None = None


class MidjourneyImagine(MidjourneyBody):
    """A prompt, and pictures as data URLs."""

    model_config = _example(
        prompt="a red fox in snow --ar 16:9", state="fox-1", notifyHook="https://example.com/hook"
    )

    prompt: Annotated[str, Field(max_length=6000)]
    base64Array: list[str] | None = None  # noqa: N815
    base64: str | None = None
    botType: Annotated[str, Field(max_length=32)] | None = None  # noqa: N815
    accountFilter: MidjourneyFilter | None = None  # noqa: N815


class MidjourneyChange(MidjourneyBody):
    """An action on one of a grid's pictures."""

    model_config = _example(taskId=_JOB, action="UPSCALE", index=2)

    taskId: Annotated[str, Field(max_length=128)]  # noqa: N815
    action: Annotated[str, Field(max_length=32, examples=["UPSCALE"])]
    index: Annotated[int, Field(ge=1, le=4)] | None = None


class MidjourneySimpleChange(MidjourneyBody):
    """The same in one text."""

    model_config = _example(content=f"{_JOB} U2")

    content: Annotated[str, Field(max_length=200, examples=["job_01k… U1"])]


class MidjourneyAction(MidjourneyBody):
    """A button of a task."""

    model_config = _example(taskId=_JOB, customId=f"MJ::JOB::upsample::2::{_JOB}")

    taskId: Annotated[str, Field(max_length=128)]  # noqa: N815
    customId: Annotated[str, Field(max_length=300)]  # noqa: N815


class MidjourneyModal(MidjourneyBody):
    """The answer to a window, whose id code 21 gave."""

    model_config = _example(taskId=f"{_JOB}-custom_zoom-5ea1f0c5", prompt="a red fox in snow --zoom 1.5")

    taskId: Annotated[str, Field(max_length=128)]  # noqa: N815
    prompt: Annotated[str, Field(max_length=6000)] | None = None
    maskBase64: str | None = None  # noqa: N815


class MidjourneyBlend(MidjourneyBody):
    """Two to five pictures as data URLs."""

    model_config = _example(
        base64Array=["https://example.com/fox.png", "https://example.com/snow.png"], dimensions="SQUARE"
    )

    base64Array: list[str]  # noqa: N815
    dimensions: Annotated[str, Field(max_length=32, examples=["SQUARE"])] | None = None
    botType: Annotated[str, Field(max_length=32)] | None = None  # noqa: N815


class MidjourneyDescribe(MidjourneyBody):
    """A picture as a data URL, or its address."""

    model_config = _example(link="https://example.com/fox.png")

    base64: str | None = None
    link: str | None = None
    botType: Annotated[str, Field(max_length=32)] | None = None  # noqa: N815


class MidjourneyShorten(MidjourneyBody):
    """A prompt."""

    model_config = _example(prompt="a very red and rather small fox that stands in deep white snow")

    prompt: Annotated[str, Field(max_length=6000)]
    botType: Annotated[str, Field(max_length=32)] | None = None  # noqa: N815


class MidjourneyIds(Body):
    """Tasks to show."""

    model_config = ConfigDict(extra="ignore", frozen=True) | _example(ids=[_JOB])

    ids: Annotated[list[Annotated[str, Field(max_length=128)]], Field(max_length=1000)] | None = None


# ---------------------------------------------------------------- users and tokens


class SignIn(Body):
    """An e-mail and its password."""

    model_config = _example(email="fox@example.com", password="correct horse battery staple")

    email: Annotated[str, Field(min_length=1, max_length=320)]
    password: Annotated[str, Field(min_length=1, max_length=1024)]


class NewToken(Body):
    """A token to create; `rate_limit`, e.g. `60/minute`, is of submits with it, beside your own."""

    model_config = _example(name="laptop", rate_limit="60/minute")

    name: Name
    rate_limit: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}/(second|minute|hour|day)$")] | None = None


class NewUser(Body):
    """A user to create."""

    model_config = _example(email="fox@example.com", name="Fox", password="correct horse battery staple")

    email: Email
    name: Annotated[str, Field(max_length=255)] = ""
    role: RoleName = "user"
    password: Annotated[str, Field(min_length=8, max_length=72)] | None = None


class UserChange(Body):
    """What to change about a user; what is absent stays."""

    model_config = _example(name="Red Fox", weight=2)

    email: Email | None = None
    name: Name | None = None
    role: RoleName | None = None
    password: Annotated[str, Field(min_length=8, max_length=72)] | None = None
    weight: Annotated[int, Field(ge=1, le=MAX_WEIGHT)] | None = None


class NewGrant(Body):
    """Credits to add."""

    model_config = _example(amount=1000, note="Invoice 7")

    amount: Annotated[int, Field(ge=1, le=MAX_AMOUNT)]
    note: Annotated[str, Field(max_length=1000)] | None = None


# ---------------------------------------------------------------- webhooks

EventTypes = Annotated[
    list[EventType], Field(min_length=1, max_length=_MOST_EVENT_TYPES), BeforeValidator(_event_types),
    AfterValidator(_each_once),
]  # fmt: skip


class NewWebhookEndpoint(Body):
    """A webhook endpoint to create. Without `event_types` it is told everything.

    Events hold the job; pictures that its input gave inline are only named there, by their beginning and length.
    """

    model_config = _example(
        url="https://example.com/hook", name="my hook", event_types=["video.completed", "video.failed"]
    )

    url: WebUrl
    name: Annotated[str, Field(max_length=255)] = ""
    event_types: EventTypes = []


class WebhookEndpointChange(Body):
    """What to change about a webhook endpoint; what is absent stays."""

    model_config = _example(name="our hook", event_types=["video.completed"])

    url: WebUrl = ""
    name: Annotated[str, Field(max_length=255)] = ""
    event_types: EventTypes = []
    enabled: bool = True


class SecretRotation(Body):
    """Whether the present secret signs, too, for another day."""

    model_config = _example(keep_old_secret_active_for_24_hours=True)

    keep_old_secret_active_for_24_hours: bool = False


class WebhookTest(Body):
    """A sample to send."""

    model_config = _example(event_type="video.completed")

    event_type: Annotated[EventType, Field(strict=False)]


class WebhookReplay(Body):
    """What to send again: what happened `since` and was not taken; with `delivered` also what was."""

    model_config = _example(since="2026-11-24T20:00:00Z")

    since: Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_written), AfterValidator(_in_utc)]
    delivered: bool = False


class DeliveriesQuery(Query):
    """Which deliveries to list."""

    endpoint_id: Annotated[str, Field(max_length=64)] | None = None
    job_id: Annotated[str, Field(max_length=64)] | None = None
    status: Delivery | None = None
    limit: Limit = 20
    after: _id("evt") | None = None  # type: ignore[valid-type]


# ---------------------------------------------------------------- tools


class Circle(Body):
    """Users and groups, by id."""

    user_ids: Annotated[list[Annotated[str, Field(max_length=255)]], Field(max_length=1000)] = []
    group_ids: Annotated[list[Annotated[str, Field(max_length=255)]], Field(max_length=1000)] = []


class AccessControl(Body):
    """Who besides the owner and administrators may read (and run) or change a tool."""

    read: Circle | None = None
    write: Circle | None = None


class ToolChange(Body):
    """What to change about a tool; what is absent stays."""

    model_config = _example(name="red fox", description="A fox of any kind")

    name: Name = ""
    description: Annotated[str, Field(max_length=10_000)] = ""
    model: Annotated[str, Field(max_length=128)] = ""
    input: dict[str, Any] = {}
    access_control: AccessControl | None = None


class NewTool(ToolChange):
    """A tool to create. Without `access_control` it is its owner's alone; `null` means everyone."""

    model_config = _example(
        name="fox", model="flux/pro-1.1", input={"prompt": "a red fox", "aspect_ratio": "16:9"}
    )

    name: Name
    model: Annotated[str, Field(max_length=128)]
    access_control: AccessControl | None = AccessControl()


class ToolRun(JobOptions):
    """A run of a tool; what `input` holds wins over the tool's own input."""

    model_config = _example(input={"prompt": "a red fox in snow"})

    input: dict[str, Any] = {}
    parent_id: Annotated[str, Field(max_length=64)] | None = None
