"""Every table, one module a family. Only services (and the migration runner) import these."""

from common.models.accounts import ProviderAccount
from common.models.credits import CreditAccount, LedgerEntry
from common.models.deletions import ObjectDeletion
from common.models.jobs import Artifact, IdempotencyKey, Job, JobAttempt, JobEvent, JobStep
from common.models.legacy import LegacyRecord
from common.models.platform import AppSetting, CatalogModel, MigrationLedger, MigrationReport
from common.models.schedules import Schedule
from common.models.tools import Tool
from common.models.uploads import Upload
from common.models.users import ApiToken, Auth, Group, User
from common.models.webhooks import WebhookDelivery, WebhookEndpoint, WebhookSecret

__all__ = [
    "ApiToken",
    "AppSetting",
    "Artifact",
    "Auth",
    "CatalogModel",
    "CreditAccount",
    "Group",
    "IdempotencyKey",
    "Job",
    "JobAttempt",
    "JobEvent",
    "JobStep",
    "LedgerEntry",
    "LegacyRecord",
    "MigrationLedger",
    "MigrationReport",
    "ObjectDeletion",
    "ProviderAccount",
    "Schedule",
    "Tool",
    "Upload",
    "User",
    "WebhookDelivery",
    "WebhookEndpoint",
    "WebhookSecret",
]
