"""Models of every kind, and a schema that lacks several of their columns."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, MetaData, String, Table, Text, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from common.db.types import Json, UtcDateTime

LONG_AGO = dt.datetime(2020, 2, 3, 4, 5, 6, tzinfo=dt.UTC)
LACKING: Mapping[str, frozenset[str]] = {
    "user": frozenset({"phone", "nick", "grade", "prefs", "level", "since", "ratio", "flag", "a_b"}),
    "tool": frozenset({"access_control", "config_id"}),
    "book": frozenset({"isbn", "pages"}),
    "counter": frozenset({"note"}),
    "vault": frozenset({"secret", "access"}),
}


class Base(DeclarativeBase):
    """Tables of these tests alone."""


class User(Base):
    __tablename__ = "user"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str | None] = mapped_column(String(64))
    email: Mapped[str | None] = mapped_column(String(64), unique=True)
    score: Mapped[int | None] = mapped_column(BigInteger)
    settings: Mapped[Any] = mapped_column(Json, nullable=True)
    phone: Mapped[str | None] = mapped_column(String(64), unique=True)
    nick: Mapped[str | None] = mapped_column(String(64), default=lambda: "made", onupdate=lambda: "changed")
    grade: Mapped[str] = mapped_column(String(16), server_default=text("'new'"))
    prefs: Mapped[Any] = mapped_column(Json, nullable=True, default={"it's": "50%"})
    level: Mapped[int] = mapped_column(default=3)
    since: Mapped[dt.datetime | None] = mapped_column(UtcDateTime, default=LONG_AGO)
    ratio: Mapped[float | None] = mapped_column(default=0.5)
    flag: Mapped[bool] = mapped_column(default=False)
    odd: Mapped[str | None] = mapped_column("a_b", String(64), default="100% o'clock")
    tools: Mapped[list[Tool]] = relationship(back_populates="owner", order_by="Tool.id")


class Tool(Base):
    __tablename__ = "tool"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[str | None] = mapped_column(ForeignKey("user.id"))
    parent_id: Mapped[str | None] = mapped_column(String(32))
    content: Mapped[str | None] = mapped_column(Text)
    access_control: Mapped[Any] = mapped_column(Json, nullable=True)
    config_id: Mapped[int | None] = mapped_column(ForeignKey("config.id"))
    owner: Mapped[User | None] = relationship(back_populates="tools")


class Config(Base):
    __tablename__ = "config"

    id: Mapped[int] = mapped_column(primary_key=True)
    data: Mapped[Any] = mapped_column(JSON, nullable=True)


class Item(Base):
    """A hierarchy over two tables."""

    __tablename__ = "item"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    title: Mapped[str | None] = mapped_column(String(64))
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "item"}  # noqa: RUF012


class Book(Item):
    __tablename__ = "book"

    id: Mapped[int] = mapped_column(ForeignKey("item.id"), primary_key=True)
    author: Mapped[str | None] = mapped_column(String(64))
    isbn: Mapped[str | None] = mapped_column(String(64), default="none")
    pages: Mapped[int | None]
    __mapper_args__ = {"polymorphic_identity": "book"}  # noqa: RUF012


class Counter(Base):
    """Its key comes from the database, and nothing else has to be given."""

    __tablename__ = "counter"

    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str | None] = mapped_column(String(64), default="-")


class Vault(Base):
    """What must not be lost, and what must not be opened, while the schema is old."""

    __tablename__ = "vault"

    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str | None] = mapped_column(String(64))
    secret: Mapped[str | None] = mapped_column(String(64), info={"compat": "required"})
    access: Mapped[Any] = mapped_column(Json, nullable=True, info={"compat_default": {}})


def without(metadata: MetaData, lacking: Mapping[str, frozenset[str]]) -> MetaData:
    """The same tables, less some columns, as an older release would have made them."""
    old = MetaData()
    for table in metadata.sorted_tables:
        Table(
            table.name,
            old,
            *(
                Column(
                    column.name,
                    column.type,
                    primary_key=column.primary_key,
                    nullable=column.nullable,
                    unique=column.unique,
                )
                for column in table.columns
                if column.name not in lacking.get(table.name, ())
            ),
        )
    return old
