"""A server in a thread, and what a browser without JavaScript does with its forms."""

import contextlib
import socket
import threading
import time
from html.parser import HTMLParser

import httpx
import uvicorn


@contextlib.contextmanager
def serving(app):
    """The address of a server of this application, while it runs."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


class Page(HTMLParser):
    """What a page says: its title, text, elements, and the fields that its forms would send."""

    def __init__(self, html):
        super().__init__()
        self.title, self.text, self.tags, self.forms = "", "", [], []
        self._open, self._select = [], None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        own = {name: "" if value is None else value for name, value in attributes}
        self.tags.append((tag, own))
        self._open.append(tag)
        if tag == "form":
            self.forms.append((own, {}))
        elif tag in ("input", "textarea") and self.forms and "name" in own:
            ticked = own.get("type") not in ("radio", "checkbox") or "checked" in own
            if ticked:
                self.forms[-1][1][own["name"]] = own.get("value", "")
        elif tag == "select":
            self._select = own["name"]
        elif tag == "option" and self._select and self.forms:
            self.forms[-1][1].setdefault(self._select, None)
            self._chosen = "selected" in own
        if tag in ("input", "meta", "link", "circle", "rect", "line", "path", "option"):
            self._open.pop()

    def handle_endtag(self, tag):
        if tag in self._open:
            while self._open.pop() != tag:
                pass
        if tag == "select":
            self._select = None

    def handle_data(self, data):
        if self._select and self.forms and data.strip():
            fields = self.forms[-1][1]
            if self._chosen or fields[self._select] is None:
                fields[self._select] = data.strip()
        if self._open[-1:] == ["title"] and "svg" not in self._open:
            self.title += data
        self.text += data

    def form(self, step=None, action=None):
        """The path and the fields of a form."""
        for own, fields in self.forms:
            if step in (None, own.get("data-step")) and action in (None, own["action"]):
                return own["action"], dict(fields)
        raise AssertionError(f"no form of {step or action} on {self.title!r}")

    @property
    def main(self):
        """The attributes of the main element."""
        return next(own for tag, own in self.tags if tag == "main")

    @property
    def words(self):
        """The text, its white space as one."""
        return " ".join(self.text.split())


class Browser:
    """Somebody without JavaScript."""

    def __init__(self, base):
        self.http = httpx.Client(base_url=base, follow_redirects=True, timeout=20)
        self.answer = self.page = None

    def get(self, path):
        self.answer = self.http.get(path)
        self.page = Page(self.answer.text)
        return self.page

    def send(self, step=None, action=None, **fields):
        """Send a form of the page that is open."""
        path, own = self.page.form(step, action)
        return self.post(path, {**own, **{n.replace("_", "-"): v for n, v in fields.items()}})

    def post(self, path, fields):
        self.answer = self.http.post(path, data=fields)
        self.page = Page(self.answer.text)
        return self.page
