"""The database's tables. Every change of them is a module in ``migrations/versions``."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, MetaData, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

LENGTH = 200
"""Of names, at most."""


class Base(DeclarativeBase):
    """What all tables share."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012
        dict[str, Any]: JSON(none_as_null=True),
        list[int]: JSON(none_as_null=True),
        str: String(LENGTH),
    }


class StudyRow(Base):
    """A study, with its settings as they were when it began."""

    __tablename__ = "studies"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    settings: Mapped[dict[str, Any]]
    created: Mapped[float]


class ParticipantRow(Base):
    """A participant; of one who was deleted, what the counts need."""

    __tablename__ = "participants"
    __table_args__ = (UniqueConstraint("study_id", "position"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    arm: Mapped[str]
    position: Mapped[int] = mapped_column(BigInteger)
    enrolled: Mapped[float]
    token: Mapped[str | None] = mapped_column(unique=True)  # its SHA-256
    applicant: Mapped[dict[str, Any] | None]
    key: Mapped[list[int] | None]
    versions: Mapped[dict[str, Any] | None]
    deleted: Mapped[bool] = mapped_column(default=False)
    remains: Mapped[dict[str, Any] | None]  # of one who was deleted: number of events by kind


class EventRow(Base):
    """What happened, in the order of ``seq``."""

    __tablename__ = "events"

    participant_id: Mapped[int] = mapped_column(ForeignKey("participants.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[float]
    kind: Mapped[str]
    payload: Mapped[dict[str, Any]]


class LoginRow(Base):
    """An attempt at the researcher's password."""

    __tablename__ = "logins"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[float] = mapped_column(index=True)
    ok: Mapped[bool]
    place: Mapped[str]
