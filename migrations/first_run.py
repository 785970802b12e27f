"""What a new database gets once its schema is there: the first admin and the catalogue."""

from __future__ import annotations

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from common import clock
from common.db.schema import SETUP_KEY
from migrations.target import SETTING


def prepare(connection: Connection) -> list[str]:
    """Do it once in a database's life, in the caller's transaction. Returns lines for the operator.

    The row of `app_setting` that says it was done is committed together with what was done, so a process
    killed between schema and set-up leaves the rest to the next one. A taken-over database has its users
    already; what is called here sees that itself.
    """
    if connection.execute(select(SETTING.c.key).where(SETTING.c.key == SETUP_KEY)).first() is not None:
        return []
    # Imported late: no revision may depend on the services of the present code.
    from common.services.setup import prepare_fresh_database

    with Session(connection) as session:
        lines = prepare_fresh_database(session)
        session.commit()  # flushes; the caller's transaction goes on
    done = {"at": clock.iso(clock.now())}
    connection.execute(SETTING.insert().values(key=SETUP_KEY, value=done, updated_at=clock.now()))
    return lines
