"""Debian's Chromium without a window, driven over its debugging pipe: no driver, no port, no package."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_KEYS = {"Tab": 9, "Enter": 13, " ": 32}
# What a page's policy refused, as the page itself is told.
_WATCH = "addEventListener('securitypolicyviolation', e => (window.violations ??= []).push(e.violatedDirective))"


def chromium() -> str | None:
    """Where it is."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Chromium:
    """One tab of a browser.

    Args:
        program: The browser.
        seconds: How long an answer may take.
    """

    def __init__(self, program: str, seconds: float = 120.0) -> None:
        self._seconds, self._number, self._session = seconds, 0, ""
        self._waiting = b""
        self.events: list[dict[str, Any]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        (low_read, self._out), (self._in, low_write) = os.pipe(), os.pipe()
        to_read, to_write = (fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in (low_read, low_write))
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        options += ["--disable-dev-shm-usage", "--remote-debugging-pipe", f"--user-data-dir={self._folder.name}"]
        # The browser reads its orders from descriptor 3 and writes to 4.
        script = f'exec "$@" 3<&{to_read} 4>&{to_write} {to_read}<&- {to_write}>&-'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", program, *options, "about:blank"],
            pass_fds=(to_read, to_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for each in (low_read, low_write, to_read, to_write):
            os.close(each)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM", "Accessibility"):
            self.call(f"{domain}.enable")
        self.call("Page.addScriptToEvaluateOnNewDocument", source=_WATCH)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._session = ""
            self.call("Browser.close")
            self._process.wait(10)
        except (OSError, TimeoutError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._out)
        os.close(self._in)
        self._folder.cleanup()

    # --- orders -----------------------------------------------------------------------------------

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        """Give an order, and return its answer."""
        self._number += 1
        order: dict[str, Any] = {"id": self._number, "method": method, "params": values}
        if self._session:
            order["sessionId"] = self._session
        os.write(self._out, json.dumps(order).encode() + b"\0")
        end = time.monotonic() + self._seconds
        while True:
            message = self._next(end)
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                answer: dict[str, Any] = message["result"]
                return answer
            self.events.append(message)

    def _next(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._waiting:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError("Chromium does not answer")
            chunk = os.read(self._in, 1 << 20)
            if not chunk:
                raise OSError("Chromium ended")
            self._waiting += chunk
        line, _, self._waiting = self._waiting.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def event(self, name: str) -> dict[str, Any]:
        """Wait for an event; returns what it says."""
        end = time.monotonic() + self._seconds
        while True:
            for place, message in enumerate(self.events):
                if message.get("method") == name:
                    del self.events[place]
                    said: dict[str, Any] = message["params"]
                    return said
            self.events.append(self._next(end))

    @contextmanager
    def loading(self) -> Iterator[None]:
        """A block that leads to another page; at its end that page is loaded."""
        self.events = [each for each in self.events if each.get("method") != "Page.loadEventFired"]
        yield
        self.event("Page.loadEventFired")

    def go(self, url: str) -> None:
        """Load a page."""
        with self.loading():
            self.call("Page.navigate", url=url)

    def js(self, expression: str) -> Any:
        """The value of an expression on the page; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"])[:500])
        return answer["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + self._seconds
        while not self.js(expression):
            if time.monotonic() > end:
                raise TimeoutError(expression)
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """Press a key and let it go."""
        code = _KEYS[key]
        text = {"Enter": "\r", " ": " "}.get(key, "")
        values = {"key": key, "windowsVirtualKeyCode": code, "nativeVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **values)
        self.call("Input.dispatchKeyEvent", type="keyUp", **values)

    def write(self, text: str) -> None:
        """Write into what has the focus."""
        self.call("Input.insertText", text=text)

    def choose(self, selector: str, path: Path) -> None:
        """Choose a file in an input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path.resolve())])

    def drop(self, path: Path, x: float, y: float) -> None:
        """Drag a file over a place of the page, and drop it."""
        data = {"items": [], "files": [str(path.resolve())], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def window(self, width: int, height: int = 800, *, dark: bool = False, motion: bool = True) -> None:
        """What the page is shown in."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        features.append({"name": "prefers-reduced-motion", "value": "no-preference" if motion else "reduce"})
        self.call("Emulation.setEmulatedMedia", features=features)

    def scripts(self, on: bool) -> None:
        """Whether the page's scripts run."""
        self.call("Emulation.setScriptExecutionDisabled", value=not on)

    def shot(self, path: Path) -> None:
        """A picture of the whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        made = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(made["data"]))

    # --- what is wrong ----------------------------------------------------------------------------

    def refused(self) -> list[str]:
        """What the page's policy has refused so far, on this page; and errors of its console."""
        told = [
            message["params"]["entry"]["text"]
            for message in self.events
            if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error"
        ]
        return told + list(self.js("window.violations ?? []"))
