"""Saved presets with access control, in Open WebUI's table."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Text
from sqlalchemy.orm import Mapped, mapped_column

from common.db.types import Base, SharedJson


class Tool(Base):
    """A saved, shareable preset. Ours keeps its model and input in `meta.wxiai`; a program of Open WebUI has
    its source in `content`. `access_control`: NULL everyone reads, `{}` owner only, else lists of ids."""

    __tablename__ = "tool"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    user_id: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    content: Mapped[str] = mapped_column(Text)
    specs: Mapped[str] = mapped_column(Text)
    meta: Mapped[str] = mapped_column(Text)
    access_control: Mapped[Any] = mapped_column(
        SharedJson, nullable=True, info={"compat": "required", "compat_default": {}}
    )  # where it is missing nothing may be public
    created_at: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[int] = mapped_column(BigInteger)
