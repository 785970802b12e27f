"""What the schema shall be: the tables of the models. The only module here that imports them."""

from __future__ import annotations

from sqlalchemy import Table

import common.models
from common.db.types import Base

assert common.models  # imported for its tables

METADATA = Base.metadata
REPORT: Table = METADATA.tables["migration_report"]
LEDGER: Table = METADATA.tables["migration_ledger"]
SETTING: Table = METADATA.tables["app_setting"]
BOOKKEEPING = {REPORT.name, LEDGER.name}
