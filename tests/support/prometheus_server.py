"""A real Prometheus on loopback that scrapes daemons of a test or a drill."""

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from tests.support.monitoring import program
from tests.support.servers import Server

Series = dict[str, Any]


class PrometheusServer(Server):
    """Prometheus with rules, scraping every second.

    Parameters:
        data_dir: what it stores; its configuration is in `<data_dir>.yml`.
        targets: host and port of each daemon.
        rule_files: alert rules.
    """

    name = "prometheus"

    def __init__(self, data_dir: Path, *, targets: list[str], rule_files: list[Path]) -> None:
        super().__init__(data_dir)
        self._config = data_dir.with_suffix(".yml")
        settings = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in rule_files],
            "scrape_configs": [{"job_name": "video-uploader", "static_configs": [{"targets": targets}]}],
        }
        self._config.write_text(yaml.safe_dump(settings))

    def query(self, expression: str) -> list[Series]:
        """Return the series of an expression as they are now."""
        found: list[Series] = self._get("/api/v1/query", query=expression)["result"]
        return found

    def query_range(self, expression: str, *, start: float, end: float) -> list[Series]:
        """Return the series of an expression, one value a second.

        Parameters:
            expression: in PromQL.
            start: seconds since the epoch.
            end: the same.
        """
        found: list[Series] = self._get(
            "/api/v1/query_range", query=expression, start=str(start), end=str(end), step="1"
        )["result"]
        return found

    def rules(self) -> list[Series]:
        """Return every rule with its state, its health and its last error."""
        groups: list[Series] = self._get("/api/v1/rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        status, text = self._ask(f"{path}?{urlencode(parameters)}")
        assert status == http.client.OK, text
        found: dict[str, Any] = json.loads(text)["data"]
        return found

    def _ask(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        finally:
            connection.close()

    def _command(self) -> list[str]:
        return [
            program("prometheus"),
            f"--config.file={self._config}",
            f"--storage.tsdb.path={self.data_dir}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]

    def _answers(self) -> bool:
        try:
            return self._ask("/-/ready")[0] == http.client.OK
        except OSError:
            return False
