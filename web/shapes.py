"""What answers hold, for the OpenAPI document; tests hold real answers against these."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from common.words import Delivery, EntryKind, ErrorCode, EventType, Status


class Shape(BaseModel):
    """An answer."""

    model_config = ConfigDict(extra="forbid")


class ErrorDetail(Shape):
    """What went wrong, and in which field."""

    code: str
    type: str
    message: str
    param: str | None


class Error(Shape):
    """Every answer with a status of 400 or more."""

    error: ErrorDetail


# ---------------------------------------------------------------- jobs


class Artifact(Shape):
    """A result in the operator's storage."""

    id: str
    kind: str
    url: str
    thumbnail_url: str | None
    content_type: str
    bytes: int
    width: int | None
    height: int | None
    duration_s: float | None
    sha256: str


class Action(Shape):
    """What may follow a result: a job with this `input.action` and the job as `parent_id`."""

    id: str
    label: str


class JobError(Shape):
    """Why a job failed."""

    code: ErrorCode
    message: str
    retryable: bool


class Cost(Shape):
    """Credits: `held` at submission, `charged` once settled."""

    held: int
    charged: int | None


class Urls(Shape):
    """Where to go on."""

    self: str
    events: str
    cancel: str


class Job(Shape):
    """One request, from submission to settlement."""

    id: str
    object: Literal["job"]
    status: Status
    provider: str
    model: str
    action: str
    input: dict[str, Any]
    progress: int = Field(ge=0, le=100)
    preview_url: str | None
    parent_id: str | None
    artifacts: list[Artifact]
    actions: list[Action]
    output: dict[str, Any] | None
    error: JobError | None
    cost: Cost
    metadata: dict[str, Any]
    attempts: int
    late: bool = Field(description="The result came after the job had ended")
    created_at: datetime
    submitted_at: datetime | None
    finished_at: datetime | None
    urls: Urls


class JobEvent(Shape):
    """An event of a stream of Server-Sent Events."""

    event: Literal["status", "progress", "preview"]
    id: str = Field(description="For `Last-Event-ID`")
    data: str = Field(description="JSON: the job's `id`, `status`, `progress` and `preview_url`")


class Moment(Shape):
    """Something that happened to a job."""

    object: Literal["moment"]
    at: datetime
    kind: str = Field(examples=["accepted", "attempt_sent", "generation_succeeded", "credits_capture"])
    message: str | None
    attempt: int | None = Field(description="Which attempt, counted from 1")
    data: dict[str, Any]


class Upload(Shape):
    """A picture, film or sound that was brought for jobs: its id may stand in any of their media inputs."""

    id: str
    object: Literal["upload"]
    name: str | None
    kind: Literal["image", "video", "audio"]
    content_type: str
    bytes: int
    width: int | None
    height: int | None
    duration_s: float | None
    sha256: str
    url: str
    created_at: datetime


class Model(Shape):
    """A model of the catalogue."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    provider: str
    title: str
    kind: str
    price: dict[str, Any]
    input_schema: dict[str, Any]
    actions: list[str]


class Quote(Shape):
    """What a job would cost."""

    object: Literal["quote"]
    model: str
    credits: int
    breakdown: list[dict[str, Any]]


class OpenAIPicture(Shape):
    """A picture's address, or the picture itself."""

    url: str = Field("", description="Unless `b64_json` was asked for")
    b64_json: str = Field("", description="If it was asked for")


class OpenAIImages(Shape):
    """Pictures that were made."""

    created: int
    data: list[OpenAIPicture]


class OpenAIVideoError(Shape):
    """Why a film was not made."""

    code: str
    message: str


class OpenAIVideo(Shape):
    """A film, as the openai SDK parses it; times are unix seconds."""

    id: str
    object: Literal["video"]
    model: str
    status: Literal["queued", "in_progress", "completed", "failed"]
    progress: int
    created_at: int
    completed_at: int | None
    expires_at: int | None
    error: OpenAIVideoError | None
    prompt: str | None
    remixed_from_video_id: str | None
    seconds: str
    size: str


class OpenAIDeletedVideo(Shape):
    """It is gone."""

    id: str
    object: Literal["video.deleted"]
    deleted: Literal[True]


class MidjourneySubmitted(Shape):
    """What midjourney-proxy servers answer to every submit: 1 accepted, 21 asks for more, 3 and 4 refused."""

    code: int
    description: str
    result: str | None
    properties: dict[str, Any]


class MidjourneyResult(Shape):
    """A picture or a film of a task."""

    url: str
    thumbnail: str | None


class MidjourneyButton(Shape):
    """What may follow; its `customId` is sent to `/mj/submit/action`."""

    customId: str  # noqa: N815 - the protocol's own names
    label: str
    emoji: str
    style: int
    type: int


class MidjourneyProperties(Shape):
    """More of a task."""

    finalPrompt: str = Field(  # noqa: N815
        description="What was drawn; or the prompts that were found, behind keycap digits"
    )


class MidjourneyTask(Shape):
    """A job as midjourney-proxy servers show it, and send it to a `notifyHook`; times are in milliseconds."""

    id: str
    parentId: str | None  # noqa: N815
    action: str = Field(examples=["IMAGINE", "UPSCALE"])
    status: Literal["NOT_START", "SUBMITTED", "IN_PROGRESS", "MODAL", "SUCCESS", "FAILURE"]
    prompt: str
    promptEn: str  # noqa: N815
    description: str
    state: str
    submitTime: int  # noqa: N815
    startTime: int | None  # noqa: N815
    finishTime: int | None  # noqa: N815
    progress: str = Field(description="As `46%`; empty after a failure")
    imageUrl: str | None = Field(description="Final only where `status` is `SUCCESS`")  # noqa: N815
    imageUrls: list[MidjourneyResult]  # noqa: N815
    videoUrl: str | None  # noqa: N815
    videoUrls: list[MidjourneyResult]  # noqa: N815
    failReason: str | None  # noqa: N815
    properties: MidjourneyProperties
    buttons: list[MidjourneyButton]


class MidjourneyFetched(RootModel[MidjourneyTask | None]):
    """A task; null where there is none."""


class MidjourneyTasks(RootModel[list[MidjourneyTask]]):
    """Tasks."""


class MidjourneyCanceled(RootModel[None]):
    """Nothing: the task is canceled, or will be."""


class Schedule(Shape):
    """A job by the clock."""

    id: str
    object: Literal["schedule"]
    name: str
    cron: str | None
    interval_s: int | None
    timezone: str
    job: dict[str, Any]
    enabled: bool
    catch_up: bool
    next_runs: list[datetime]
    last_run_at: datetime | None
    last_job_id: str | None
    last_error: str | None = Field(description="Why the last run did not become a job")
    runs: int
    created_at: datetime
    updated_at: datetime


# ---------------------------------------------------------------- webhooks


class WebhookEndpoint(Shape):
    """Somebody who is told when jobs end. Times are unix seconds, as in OpenAI's API."""

    id: str
    object: Literal["webhook_endpoint"]
    name: str
    url: str
    event_types: list[EventType]
    enabled: bool
    disabled_reason: str | None
    failures: int = Field(description="Deliveries in a row that were not taken")
    paused_until: datetime | None = Field(
        description="After several failures in a row it is left alone until then"
    )
    signing_secret_hint: str | None = Field(description="None where the secret cannot be read any more")
    created_at: int
    updated_at: int


class NewWebhookEndpoint(WebhookEndpoint):
    """The same with its secret, which is shown when it is new and never again."""

    signing_secret: str


class WebhookTestResult(Shape):
    """What the receiver answered to a sample."""

    object: Literal["webhook_endpoint.test"]
    webhook_endpoint_id: str
    event_type: EventType
    status_code: int
    success: Literal[True]


class WebhookReplayed(Shape):
    """How many deliveries are sent again."""

    object: Literal["webhook_endpoint.replay"]
    webhook_endpoint_id: str
    count: int


class DeletedWebhookEndpoint(Shape):
    """It is gone."""

    id: str
    object: Literal["webhook_endpoint.deleted"]
    deleted: Literal[True]


class WebhookDelivery(Shape):
    """An event for one receiver. Its id is the `webhook-id` of every try."""

    id: str
    object: Literal["webhook_delivery"]
    type: EventType
    status: Delivery
    job_id: str | None
    endpoint_id: str | None
    url: str
    tries: int
    response_status: int | None
    error: str | None
    created_at: datetime
    tried_at: datetime | None
    delivered_at: datetime | None
    next_try_at: datetime | None


class WebhookEventTypes(Shape):
    """What can be told."""

    object: Literal["list"]
    data: list[EventType]


class WebhookSecret(Shape):
    """What signs the webhooks of jobs that name a URL of their own."""

    object: Literal["webhook_secret"]
    secret: str


# ---------------------------------------------------------------- users


class User(Shape):
    """Someone who may use the platform."""

    id: str
    object: Literal["user"]
    email: str
    name: str
    role: str
    created_at: datetime


class ManagedUser(User):
    """A user as administrators see them: with `weight` turns at the providers for each turn of others."""

    weight: int


class SignedIn(Shape):
    """A token that lasts for some days."""

    token: str
    token_type: Literal["Bearer"]
    expires_at: datetime
    user: User


class Token(Shape):
    """A Bearer token, without its secret."""

    id: str
    object: Literal["token"]
    name: str
    created_at: datetime
    rate_limit: str = Field("", description="Of submits with it; absent where it has none of its own")


class NewToken(Token):
    """A Bearer token with its secret, which is never shown again."""

    token: str


class Credits(Shape):
    """A balance."""

    object: Literal["credits"]
    available: int
    held: int


class LedgerEntry(Shape):
    """One immutable line of credit history; the deltas carry the sign."""

    id: str
    object: Literal["ledger_entry"]
    kind: EntryKind
    amount: int = Field(ge=0)
    available_delta: int
    held_delta: int
    available_after: int
    held_after: int
    job_id: str | None
    note: str | None
    created_at: datetime


class Tool(Shape):
    """A saved preset. `model` is null for a program of Open WebUI, which cannot be run here."""

    id: str
    object: Literal["tool"]
    name: str
    description: str
    model: str | None
    input: dict[str, Any] | None
    access_control: dict[str, Any] | None = Field(
        description="Null where everyone may use it, and to those who may not change it"
    )
    user_id: str
    created_at: datetime
    updated_at: datetime


# ---------------------------------------------------------------- the platform


class Ok(Shape):
    """Heard."""

    object: Literal["ok"]


class Alive(Shape):
    """This process is alive."""

    status: Literal["ok"]


class Schema(Shape):
    """How the database's schema stands to this release."""

    state: str
    db: list[str]
    code: str | None
    missing: dict[str, list[str]]
    holder: str | None


class Readiness(Shape):
    """Whether jobs can be accepted."""

    status: Literal["ok", "degraded", "unavailable"]
    database: Literal["ok", "unavailable"]
    redis: Literal["ok", "unavailable"]
    schema_: Schema = Field(alias="schema")
