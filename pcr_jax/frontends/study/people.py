"""Who takes part: rows of applicants, and their conversations as the store has them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from pcr_jax._extras import extra
from pcr_jax.frontends.conversation import Conversation
from pcr_jax.frontends.store.store import Participant, Store
from pcr_jax.frontends.study.assignment import arm_of, key_of, order_of
from pcr_jax.frontends.study.settings import SettingsError, StudySettings
from pcr_jax.frontends.terms import Terms
from pcr_jax.session_json import versions
from pcr_jax.surrogates import Surrogate
from pcr_jax.task import Task


def terms_of(settings: Mapping[str, Any]) -> dict[str, Terms]:
    """Each arm's terms, as the database has a study's settings."""
    return {name: Terms.of(of) for name, of in settings["arms"].items()}


def fit_surrogates(task: Task, arms: Mapping[str, Terms]) -> dict[str, Surrogate]:
    """What the task's data teach, for each arm; arms of one kind share it."""
    kinds = {terms.curved: None for terms in arms.values()}
    fitted = {curved: task.fit(curved=curved) for curved in kinds}
    return {name: fitted[terms.curved] for name, terms in arms.items()}


def conversation_of(
    task: Task,
    surrogates: Mapping[str, Surrogate],
    arms: Mapping[str, Terms],
    person: Participant,
    events: Any = (),
) -> Conversation:
    """A participant's conversation, from the events alone.

    Parameters
    ----------
    task : Task
    surrogates, arms : Mapping
        By arm, see `fit_surrogates` and `terms_of`.
    person : Participant
    events : iterable of Event
    """
    key = jax.random.wrap_key_data(jnp.array(person.key, jnp.uint32))
    own = surrogates[person.arm], person.applicant, arms[person.arm]
    return Conversation(task, *own, key, events)


def applicants(settings: StudySettings, task: Task) -> pd.DataFrame:
    """The applicants that a study has: refused people of the task's data, or a file's.

    Raises
    ------
    SettingsError
        If there is nobody, a file has a row that the task cannot take, or somebody is not refused.
    """
    if settings.file is None:
        refused = ~task.check(task.data).favourable.to_numpy()
        if not refused.any():
            raise SettingsError("Expected a task that refuses somebody in its data; got none.")
        return task.data[refused]
    name = settings.file.name
    try:
        rows = task.rows(_read(settings.file), "the file of applicants")
        favourable = task.check(rows).favourable.to_numpy()
    except (TypeError, ValueError, KeyError, OSError) as error:
        said = " ".join(f"{error}".split())
        raise SettingsError(f"Expected {name} to be a table of applicants; {said}") from None
    if favourable.any():
        place = int(np.flatnonzero(favourable)[0])
        raise SettingsError(
            f"Expected {name} to have applicants who are refused; row {place + 1} is not."
        )
    return rows


def _read(file: Any) -> pd.DataFrame:
    kind = file.suffix.lower()
    if kind == ".csv":
        return pd.read_csv(file)
    if kind == ".parquet":
        with extra("study"):
            import pyarrow  # noqa: F401
        return pd.read_parquet(file)
    return pd.read_json(file, orient="records")


def _entry(value: Any) -> Any:
    """A table's entry as JSON has it."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value if isinstance(value, str | int | float | bool) else str(value)


def entries_of(rows: pd.DataFrame, place: int) -> dict[str, Any]:
    """One row, as the store keeps it."""
    row = rows.iloc[place]
    return {f"{column}": _entry(row[column]) for column in rows.columns}


def enrol(
    store: Store, study_id: int, settings: StudySettings, rows: pd.DataFrame, position: int
) -> tuple[Participant, str]:
    """Enrol the person at a position: arm, key and row follow from the seed and the position.

    Synthetic applicants come in random order, a file's in its own.

    Raises
    ------
    Conflict
        If the position is taken.
    """
    arm = arm_of(settings.seed, position, list(settings.arms), settings.block)
    synthetic = settings.file is None
    place = order_of(settings.seed, len(rows), position) if synthetic else position
    key = key_of(settings.seed, position)
    return store.enrol(study_id, arm, entries_of(rows, place), key, position, versions())


def as_json(value: Any) -> str:
    """Strict JSON in one line."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False)
