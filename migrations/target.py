"""What the schema shall be: the tables of the models. The only module here that imports them."""

from __future__ import annotations

from sqlalchemy import Table

import common.models
from common.db.types import Base

assert common.models  # imported for its tables

METADATA = Base.metadata
MODELS: list[type[Base]] = [mapper.class_ for mapper in Base.registry.mappers]
SHARED = frozenset({"user", "auth", "group", "tool"})  # with Open WebUI, in whose shape they may be
REPORT: Table = METADATA.tables["migration_report"]
LEDGER: Table = METADATA.tables["migration_ledger"]
SETTING: Table = METADATA.tables["app_setting"]
BOOKKEEPING = {REPORT.name, LEDGER.name}
