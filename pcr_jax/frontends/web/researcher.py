"""The researcher's page: how a study goes, without anybody's answers."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from pcr_jax.frontends.web.participant import Form
from pcr_jax.frontends.web.security import LOGIN_SECONDS, RESEARCHER, Refused, address, same

_FAILURES, _WITHIN = 5, 15 * 60
_COUNTED = {
    "enrolled": "Enrolled",
    "consented": "Agreed",
    "answers": "Answers",
    "finished": "Finished",
    "withdrawn": "Left",
}
_one = threading.Lock()

router = APIRouter(prefix="/researcher")


def _site(request: Request) -> Any:
    """The site, if it has a page for researchers."""
    site = request.app.state.site
    if site.settings.password is None:
        raise Refused(404, "Not found", "There is no page at this address.")
    return site


def _logged_in(request: Request) -> bool:
    return _site(request).keys.logged_in(request.cookies.get(RESEARCHER, ""))


def _counts(site: Any) -> dict[str, Any]:
    counts = site.store.counts(site.settings.study)
    rows = [(arm, [found[name] for name in _COUNTED]) for arm, found in counts.items()]
    total = [sum(column) for column in zip(*(numbers for _, numbers in rows), strict=True)]
    now = datetime.now(UTC)
    return {"rows": rows, "total": total, "names": list(_COUNTED.values()), "now": now}


@router.get("")
def overview(request: Request) -> Response:
    """The counts and the participants, or where to log in."""
    site = _site(request)
    if not _logged_in(request):
        return site.page("login.html", form=site.keys.form("login"), problems={})
    people = [
        (participant, site.store.events(participant.id))
        for participant in site.store.participants(site.settings.study)
    ]
    listed = [
        {
            "id": participant.id,
            "arm": participant.arm,
            "answers": _answers(events),
            "last": events[-1].kind if events else "enrolled",
            "at": datetime.fromtimestamp(events[-1].at, UTC) if events else None,
        }
        for participant, events in people
    ]
    leave = site.keys.form("leave")
    return site.page("researcher.html", people=listed, form=leave, **_counts(site))


def _answers(events: list[Any]) -> int:
    kinds = [event.kind for event in events]
    return kinds.count("answered") - kinds.count("back")


@router.get("/counts")
def counts(request: Request) -> Response:
    """The counts alone, for a page that is open."""
    site = _site(request)
    if not _logged_in(request):
        raise Refused(403, "Please log in", "You are not logged in any more.")
    return site.page("counts.html", **_counts(site))


@router.post("/login")
def login(request: Request, fields: Form) -> Response:
    """Compare the password; after five failures nobody can try for a while."""
    site = _site(request)
    if not site.keys.of_form(fields.get("form", ""), "login"):
        raise Refused(403, "Too late", "This page was opened long ago. Please reload it.")
    with _one:
        if site.store.recent_failures(_WITHIN) >= _FAILURES:
            text = "There were too many wrong passwords. Please try again in a quarter of an hour."
            raise Refused(429, "Too many wrong passwords", text, wait=_WITHIN)
        right = same(site.settings.password, fields.get("password", ""))
        site.store.note_login(right, address(request))
    if not right:
        problems = {"password": "This is not the password."}
        form = site.keys.form("login")
        return site.page("login.html", 403, form=form, problems=problems)
    response = RedirectResponse("/researcher", 303)
    response.set_cookie(
        RESEARCHER,
        site.keys.login(),
        max_age=LOGIN_SECONDS,
        path="/researcher",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


@router.post("/logout")
def logout(request: Request, fields: Form) -> Response:
    """Forget the researcher."""
    if not _site(request).keys.of_form(fields.get("form", ""), "leave"):
        raise Refused(403, "Too late", "This page was opened long ago. Please reload it.")
    response = RedirectResponse("/researcher", 303)
    response.delete_cookie(RESEARCHER, path="/researcher")
    return response
