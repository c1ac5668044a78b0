"""The web application: what is shared by all pages, and how a refusal looks."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio.to_thread
import jinja2
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from pcr_jax.features import as_written, plain
from pcr_jax.frontends.web import participant, researcher
from pcr_jax.frontends.web.security import PERSON, Buckets, Guard, Keys, Refused, address

SECRET, PASSWORD = "PCR_JAX_SECRET", "PCR_JAX_RESEARCHER_PASSWORD"
"""The environment's variables."""
_THREADS = 200
_STATIC = Path(__file__).parent / "static"


def _secret() -> str:
    return os.environ.get(SECRET) or secrets.token_urlsafe(32)


def _password() -> str | None:
    return os.environ.get(PASSWORD) or None


@dataclass(frozen=True)
class Settings:
    """What a server shows, and how much it lets through.

    Attributes
    ----------
    study : int or str
        The study that its people take part in.
    title : str
        Of the pages.
    consent : tuple of str
        Paragraphs that a person agrees to.
    enrol : callable, optional
        Adds a new participant and returns the token: whoever opens the first page may try. Without
        it people need the link that they were given.
    secret : str
        What cookies and forms are signed with: ``PCR_JAX_SECRET`` of the environment, or random.
    password : str, optional
        The researcher's: ``PCR_JAX_RESEARCHER_PASSWORD`` of the environment. Without one there is
        no page for researchers.
    person, place : tuple of float
        How many requests one participant, and one address, may make at once, and a second.
    """

    study: Any
    title: str
    consent: tuple[str, ...]
    enrol: Callable[[], str] | None = None
    secret: str = field(default_factory=_secret, repr=False)
    password: str | None = field(default_factory=_password, repr=False)
    person: tuple[float, float] = (240, 10)
    place: tuple[float, float] = (6000, 100)


class Site:
    """What all pages need: the store, what computes, the settings and the templates."""

    def __init__(self, store: Any, engine: Any, settings: Settings):
        self.store, self.engine, self.settings = store, engine, settings
        self.keys = Keys(settings.secret)
        self.persons, self.places = Buckets(*settings.person), Buckets(*settings.place)
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("pcr_jax.frontends.web"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters["sentence"] = sentence
        self._templates.globals |= {
            "title": settings.title,
            "written": written,
            "shorn": lambda number: written(number).replace(",", ""),
            "slider_ends": slider_ends,
            "unwrapped": unwrapped,
            "grouped": grouped,
        }
        for path in _STATIC.iterdir():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
            self._templates.globals[path.suffix[1:]] = f"/static/{path.name}?v={digest}"

    def render(self, template: str, **content: Any) -> str:
        """A template's text."""
        return self._templates.get_template(template).render(content)

    def page(self, template: str, status: int = 200, **content: Any) -> HTMLResponse:
        """A template as a response."""
        return HTMLResponse(self.render(template, **content), status)

    def failed(self, status: int, heading: str, text: str) -> bytes:
        """The page of a request that is not served."""
        return self.render("refused.html", status=status, heading=heading, text=text).encode()

    def limit(self, buckets: Buckets, who: Any) -> None:
        """Refuse who asks too often."""
        wait = buckets.take(who)
        if wait:
            text = "You have asked for very many pages. Please wait a moment and try again."
            raise Refused(429, "Please wait a moment", text, wait=wait)


def sentence(phrase: str) -> str:
    """A phrase with a capital letter and a full stop."""
    phrase = phrase.strip()
    return phrase[:1].upper() + phrase[1:] + "." * (phrase[-1:] not in ("", ".", "?", "!"))


def written(number: float) -> str:
    """A number as people write it."""
    return plain(as_written(number))


def slider_ends(control: Any) -> tuple[float, float]:
    """Of a person's own range, so that what is so now is one of the slider's steps."""
    low, high = control.limits or (control.low, control.high)
    low, high = min(low, control.now), max(high, control.now)
    return (low + (control.now - low) % control.step if control.step else low), high


def unwrapped(letter: str) -> str:
    """A letter whose lines end where paragraphs and points do."""
    lines: list[str] = []
    for line in letter.splitlines():
        point = line.lstrip().startswith("- ")
        goes_on = lines and lines[-1] and line and not point
        if goes_on and not lines[-1].lstrip().startswith("- "):
            lines[-1] += f" {line}"
        else:
            lines.append(line)
    return "\n".join(lines)


def grouped(price: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Prices of certainty, of several that are the same the one that is most sure."""
    kept: list[dict[str, Any]] = []
    for one in price:
        if kept and kept[-1]["sentence"] == one["sentence"]:
            kept.pop()
        kept.append(one)
    return kept


async def _by_place(request: Request) -> None:
    site: Site = request.app.state.site
    site.limit(site.places, address(request))


_SAID = {
    404: ("Not found", "There is no page at this address."),
    405: ("Not possible", "This page cannot be used in this way."),
}


def create_app(store: Any, engine: Any, settings: Settings) -> FastAPI:
    """The application that serves a study.

    Parameters
    ----------
    store : Store
        Where participants and events are. Its connections are closed when serving ends.
    engine : Engine
        What computes, for many threads.
    settings : Settings

    Returns
    -------
    FastAPI
        An ASGI application. Its pages need no JavaScript, and nothing from another host.
    """
    site = Site(store, engine, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        yield
        store.close()

    app = FastAPI(
        docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan, title=settings.title
    )
    app.state.site = site
    app.add_middleware(Guard, failed=site.failed)
    app.mount("/static", StaticFiles(directory=_STATIC))

    @app.exception_handler(Refused)
    def refused(request: Request, error: Refused) -> Response:
        response = HTMLResponse(site.failed(error.status, error.title, error.text), error.status)
        if error.wait:
            response.headers["Retry-After"] = f"{int(error.wait) + 1}"
        if error.forget:
            response.delete_cookie(PERSON)
        return response

    @app.exception_handler(participant.Stale)
    def stale(request: Request, error: participant.Stale) -> Response:
        return RedirectResponse("/?note=stale", 303)

    @app.exception_handler(HTTPException)
    def unserved(request: Request, error: HTTPException) -> Response:
        heading, text = _SAID.get(error.status_code, ("Not served", "This cannot be shown."))
        page = site.failed(error.status_code, heading, text)
        return HTMLResponse(page, error.status_code, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> Response:
        return HTMLResponse(site.failed(400, "Not readable", "This could not be read."), 400)

    for router in (participant.router, researcher.router):
        app.include_router(router, dependencies=[Depends(_by_place)])
    return app
