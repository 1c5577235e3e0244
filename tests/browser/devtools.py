"""A headless Chromium, spoken to through a pipe in its DevTools protocol; nothing to install.

A page is opened at a width and in a theme, and then asked: what it says of itself, what it looks
like, what it tried to load and what it complained of. The protocol's messages are JSON, each ended
by a NUL; see https://chromedevtools.github.io/devtools-protocol/.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

VARIABLE = "QUANTSHIP_CHROMIUM"
"""Environment variable that names the browser."""
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--remote-debugging-pipe",
)
PATIENCE_S = 120.0
"""How long an answer may take, on a machine that has other things to do."""
BROWSER_READS, BROWSER_WRITES = 3, 4
"""Descriptors on which Chromium expects the pipe."""
Theme = Literal["light", "dark"]


def find() -> str | None:
    """The browser that the environment names, else the first one on the path; None without one."""
    named = os.environ.get(VARIABLE)
    if named:
        return shutil.which(named)
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


def missing() -> str:
    """Why nothing can be looked at."""
    named = os.environ.get(VARIABLE)
    if named:
        return f"{VARIABLE} is '{named}', and that is no program"
    return f"no Chromium or Chrome on the path; name one in {VARIABLE}"


@dataclass
class Page:
    """A page that is open.

    Args:
        browser: Where.
        session: Its name in the protocol.
        requests: Addresses that it has asked for, its own the first.
        complaints: What it wrote to the console as an error or a warning.
    """

    browser: Browser
    session: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def ask(self, expression: str) -> Any:
        """Value of a JavaScript expression; the page's own policy against scripts stays."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def tree(self) -> list[dict[str, Any]]:
        """What a screen reader is given."""
        nodes: list[dict[str, Any]] = self.call("Accessibility.getFullAXTree")["nodes"]
        return nodes

    def picture(self, out: Path, *, whole: bool = True) -> None:
        """Save what it looks like as PNG: all of it, or what fits into its window."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        out.write_bytes(base64.b64decode(shot["data"]))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol on this page."""
        return self.browser.call(method, params, self.session)


class Browser:
    """A Chromium that runs, with a profile of its own."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back = to, back
        self._last, self._rest = 0, b""
        self._pages: dict[str, Page] = {}

    @contextmanager
    def page(
        self, file: Path, *, width: int, height: int = 900, theme: Theme = "light"
    ) -> Iterator[Page]:
        """Open a local file in a window of this size, in CSS pixels, and close it again."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})
        page = Page(self, attached["sessionId"])
        self._pages[page.session] = page
        for domain in ("Page", "Network", "Log", "Runtime", "Accessibility"):
            page.call(f"{domain}.enable")
        phone = width < 600
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        wanted = [{"name": "prefers-color-scheme", "value": theme}]
        page.call("Emulation.setEmulatedMedia", features=wanted)
        page.call("Page.navigate", url=file.resolve().as_uri())
        self._settle(page)
        yield page
        self.call("Target.closeTarget", {"targetId": target})

    def call(
        self, method: str, params: dict[str, Any], session: str | None = None
    ) -> dict[str, Any]:
        """Call a method of the protocol, and take note of what happens meanwhile."""
        self._last += 1
        number = self._last
        message = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        until = time.monotonic() + PATIENCE_S
        while True:
            answer = self._read(until)
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _settle(self, page: Page) -> None:
        until = time.monotonic() + PATIENCE_S
        while page.ask("document.readyState") != "complete" or page.ask("location.href") == (
            "about:blank"
        ):
            assert time.monotonic() < until, "the page does not load"
            time.sleep(0.02)

    def _read(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._back], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError(f"Chromium did not answer within {PATIENCE_S:.0f} s")
            more = os.read(self._back, 1 << 20)
            if not more:
                raise ConnectionError("Chromium has ended")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        page = self._pages.get(event.get("sessionId", ""))
        if page is None:
            return
        params = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                page.requests.append(params["request"]["url"])
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                page.complaints.append(params["entry"]["text"])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                page.complaints.append(json.dumps(params["args"]))
            case "Runtime.exceptionThrown":
                page.complaints.append(params["exceptionDetails"]["text"])


@contextmanager
def browser(program: str) -> Iterator[Browser]:
    """Start a browser, and end it with all its processes."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        theirs_in, ours_out = _high(os.pipe())
        ours_in, theirs_out = _high(os.pipe())
        actions = [
            (os.POSIX_SPAWN_DUP2, theirs_in, BROWSER_READS),
            (os.POSIX_SPAWN_DUP2, theirs_out, BROWSER_WRITES),
            *((os.POSIX_SPAWN_OPEN, out, os.devnull, os.O_WRONLY, 0) for out in (1, 2)),
        ]
        command = [program, *ARGUMENTS, f"--user-data-dir={profile}", "about:blank"]
        process = os.posix_spawn(program, command, os.environ, file_actions=actions, setpgroup=0)
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            yield Browser(ours_out, ours_in)
        finally:
            os.close(ours_out)
            os.close(ours_in)
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)


def _high(pair: tuple[int, int]) -> tuple[int, int]:
    """The same pipe on descriptors that are out of the way of those that Chromium expects."""
    moved = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in pair)
    for end in pair:
        os.close(end)
    return moved[0], moved[1]
