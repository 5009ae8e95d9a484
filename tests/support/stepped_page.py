"""The status page of a daemon that a test steps."""

import threading
from pathlib import Path
from typing import Any

from status.server import create_app
from status.wiring import wire_page
from tests.support.harness import Harness


class Page:
    """What the page of a daemon says; asked without a server.

    Parameters:
        harness: the daemon.
        data_dir: of its embedded servers.
    """

    def __init__(self, harness: Harness, data_dir: Path | None = None) -> None:
        harness.parts.watch.watching = True  # as its own thread would have it
        self._auditor = harness.parts.auditor
        stop = threading.Event()
        page = wire_page(harness.settings, harness.parts, unhealthy=dict, stop=stop, data_dir=data_dir)
        assert page
        self._client = create_app(unhealthy=dict, unready=dict, pages=[page.blueprint]).test_client()

    def answer(self) -> tuple[str, str]:
        self._auditor.step()  # as its own thread would have it
        reply = self.report()
        return reply["answer"]["level"], reply["answer"]["title"]

    def report(self) -> Any:
        """Return the document of the API."""
        return self._client.get("/api/status", headers={"Host": "127.0.0.1"}).json
