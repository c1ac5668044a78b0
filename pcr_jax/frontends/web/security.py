"""What keeps a person's pages their own, and the server standing."""

from __future__ import annotations

import hashlib
import hmac
import logging
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from fastapi import Request
from itsdangerous import BadSignature, URLSafeSerializer, URLSafeTimedSerializer

MAX_BODY = 64 * 1024
"""Bytes that a request may bring."""
MAX_ANSWER = 200
"""Characters of an answer."""
PERSON, RESEARCHER = "pcr_person", "pcr_researcher"
"""Names of the cookies."""
LOGIN_SECONDS = 8 * 3600
"""How long the researcher stays logged in."""
_FORM_SECONDS = 4 * 3600
_MOST_FIELDS = 300
_MOST_BUCKETS = 20_000

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
_log = logging.getLogger("pcr_jax.web")


class Refused(Exception):
    """A request that is not served, with what to say of it."""

    def __init__(
        self, status: int, title: str, text: str, *, wait: float = 0, forget: bool = False
    ):
        super().__init__(title)
        self.status, self.title, self.text = status, title, text
        self.wait, self.forget = wait, forget


class Keys:
    """What is signed with the server's secret.

    Parameters
    ----------
    secret : str
        The same for all workers; whoever has it can pass for anybody.
    """

    def __init__(self, secret: str):
        self._secret = secret.encode()
        self._person = URLSafeSerializer(secret, salt="person", signer_kwargs=_SIGNER)
        self._researcher = URLSafeTimedSerializer(secret, salt="researcher", signer_kwargs=_SIGNER)
        self._form = URLSafeTimedSerializer(secret, salt="form", signer_kwargs=_SIGNER)

    def cookie(self, token: str) -> str:
        """A person's cookie."""
        return self._person.dumps(token)

    def token(self, cookie: str) -> str | None:
        """The token in a person's cookie; None where somebody has changed it."""
        try:
            token = self._person.loads(cookie)
        except BadSignature:
            return None
        return token if isinstance(token, str) else None

    def csrf(self, participant: Any) -> str:
        """What a person's forms bring along."""
        return hmac.new(self._secret, f"csrf {participant}".encode(), hashlib.sha256).hexdigest()

    def login(self) -> str:
        """The researcher's cookie."""
        return self._researcher.dumps("in")

    def logged_in(self, cookie: str) -> bool:
        """Whether a cookie is the researcher's, and not too old."""
        try:
            return self._researcher.loads(cookie, max_age=LOGIN_SECONDS) == "in"
        except BadSignature:
            return False

    def form(self, purpose: str) -> str:
        """What a form of somebody unknown brings along."""
        return self._form.dumps(purpose)

    def of_form(self, text: str, purpose: str) -> bool:
        """Whether it came from such a form, not long ago."""
        try:
            return self._form.loads(text, max_age=_FORM_SECONDS) == purpose
        except BadSignature:
            return False


_SIGNER = {"digest_method": hashlib.sha256}


class Buckets:
    """How many requests each may make: ``most`` at once, and ``rate`` a second from then on."""

    def __init__(self, most: float, rate: float, clock: Callable[[], float] = time.monotonic):
        self.most, self.rate, self._clock = most, rate, clock
        self._left: dict[Any, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def take(self, who: Any) -> float:
        """Seconds to wait; 0 for one that is served."""
        with self._lock:
            now = self._clock()
            left, then = self._left.get(who, (self.most, now))
            left = min(self.most, left + self.rate * (now - then))
            served = left >= 1
            if who not in self._left and len(self._left) >= _MOST_BUCKETS:
                self._forget(now)
            self._left[who] = (left - served, now)
            return 0.0 if served else (1 - left) / self.rate

    def _forget(self, now: float) -> None:
        """Drop those that are full again; the oldest half where none is."""
        full = self.most / self.rate
        kept = {who: entry for who, entry in self._left.items() if now - entry[1] < full}
        if len(kept) >= _MOST_BUCKETS:
            kept = dict(sorted(kept.items(), key=lambda item: item[1][1])[_MOST_BUCKETS // 2 :])
        self._left = kept


def same(wanted: str, came: str) -> bool:
    """Whether two texts are the same, in a time that does not tell."""
    return hmac.compare_digest(wanted.encode(), came.encode())


def address(request: Request) -> str:
    """Where a request comes from."""
    return request.client.host if request.client else "nowhere"


def own(request: Request) -> bool:
    """Whether a form was sent by a page of this server, as far as the browser says."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        return site in ("same-origin", "none")
    # Where there is a referrer policy as ours, browsers send the origin of forms as "null".
    return origin in (None, "null") or urlsplit(origin).netloc == request.headers.get("host")


async def form(request: Request) -> dict[str, str]:
    """The fields of a form, the last of several with one name.

    Raises
    ------
    Refused
        If it is no form, or not from a page of this server.
    """
    if not own(request):
        raise Refused(403, "Not from this page", "This form was sent by another site.")
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Refused(415, "Not a form", "This page only takes what its own forms send.")
    try:
        text = (await request.body()).decode("ascii")
        pairs = parse_qsl(
            text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS
        )
    except ValueError:
        raise Refused(400, "Not readable", "This form could not be read.") from None
    return dict(pairs)


class Guard:
    """ASGI middleware: headers of safety, bodies of `MAX_BODY` at most, errors without contents.

    An error that nobody expected is logged as its kind and place, never with its message, which may
    quote what a person typed.
    """

    def __init__(self, app: Any, failed: Callable[[int, str, str], bytes]):
        self.app, self._failed = app, failed

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], *_headers(scope, message["headers"])]
            await send(message)

        received = await _within_limit(scope, receive)
        if received is None:
            text = f"A request may bring {MAX_BODY // 1024} kB at most."
            await _answer(sending, 413, self._failed(413, "Too much at once", text), close=True)
            return
        try:
            await self.app(scope, received, sending)
        except Exception as error:
            places = traceback.extract_tb(error.__traceback__)
            where = " < ".join(f"{place.filename}:{place.lineno}" for place in places[:-6:-1])
            _log.error("%s in %s", type(error).__name__, where)
            if not started:
                text = "The fault is ours, and nothing is lost. Please go back and try again."
                await _answer(sending, 500, self._failed(500, "Something went wrong", text))


def _headers(scope: Message, there: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Those of safety; what is not public is not to be stored."""
    names = {name.lower() for name, _ in there}
    static = scope["path"].startswith("/static/")
    cache = "public, max-age=31536000, immutable" if static else "no-store"
    wanted = {**HEADERS, "Cache-Control": cache}
    return [
        (name.lower().encode(), value.encode())
        for name, value in wanted.items()
        if name.lower().encode() not in names
    ]


async def _within_limit(scope: Message, receive: Receive) -> Receive | None:
    """What receives the body, read; None if it is too long."""
    length = dict(scope["headers"]).get(b"content-length", b"0")
    if not length.isdigit() or int(length[:20]) > MAX_BODY:
        return None
    body, more = b"", scope["method"] not in ("GET", "HEAD", "OPTIONS")
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BODY:
            return None
    read = False

    async def again() -> Message:
        nonlocal read
        if read:
            return await receive()
        read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _answer(send: Send, status: int, page: bytes, close: bool = False) -> None:
    headers = [(b"content-type", b"text/html; charset=utf-8")]
    headers += [(b"connection", b"close")] * close
    headers.append((b"content-length", f"{len(page)}".encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": page})
