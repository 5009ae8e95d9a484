"""What can be known of the container files without Docker; the rest is shown in a Docker engine."""

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

import config
from config import load_settings
from settings.http import HttpSettings
from settings.upload import UploadSettings
from status import wiring as page_wiring
from status.access import Access
from tests.support import monitoring

ROOT = Path(__file__).parents[2]
COMPOSE = "docker-compose.yml"
SEAWEEDFS = "docker-compose.seaweedfs.yml"
GRAFANA = "deploy/grafana"
SETTINGS = {setting.name for setting in config.SETTINGS}


class ComposeLoader(yaml.SafeLoader):
    """YAML with the two tags of Compose that change how files are merged."""


def _untagged(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    return loader.construct_mapping(node, deep=True) if isinstance(node, yaml.MappingNode) else None


ComposeLoader.add_constructor("!override", _untagged)
ComposeLoader.add_constructor("!reset", _untagged)


def load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.load((ROOT / name).read_text(), ComposeLoader)  # noqa: S506 -- a SafeLoader
    return document


def services(*names: str) -> list[Any]:
    """Every service that its file describes in full: with an image or a build."""
    found = ((name, *pair) for name in names for pair in load(name)["services"].items())
    return [
        pytest.param(text, id=service)
        for _, service, text in found
        if text and {"image", "build"} & text.keys()
    ]


def dockerfile() -> list[tuple[str, str]]:
    """Pair each instruction with its arguments, comments dropped and continued lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined if line]


def arguments(instruction: str) -> list[str]:
    return [text for word, text in dockerfile() if word == instruction]


def healthcheck() -> list[str]:
    command: list[str] = json.loads(arguments("HEALTHCHECK")[0].partition("CMD ")[2])
    return command


ADDRESSES = {
    "127.0.0.1": True,
    "172.30.253.1": True,
    "172.30.253.2": False,
    "172.17.0.1": False,
    "192.168.1.5": False,
    "8.8.8.8": False,
}
"""Who may see the page in a container without a password: the gateway of `edge`."""

every_service = pytest.mark.parametrize("service", services(COMPOSE, SEAWEEDFS))


def test_compose_runs_the_daemon_with_redis_minio_and_prometheus_and_grafana_when_asked() -> None:
    profiles = {name: service.get("profiles") for name, service in load(COMPOSE)["services"].items()}
    always = dict.fromkeys(("app", "redis", "minio", "prometheus"))
    assert profiles == always | {"grafana": ["grafana"]}


every_server = pytest.mark.parametrize(
    "service",
    [param for param in services(COMPOSE, SEAWEEDFS) if param.id != "seaweedfs-sync"],  # it ends
)


@every_server
def test_a_service_has_a_health_check(service: dict[str, Any]) -> None:
    if "build" in service:
        assert "HEALTHCHECK" in [word for word, _ in dockerfile()]
    else:
        assert service["healthcheck"]["test"][0] == "CMD"


@every_service
def test_a_service_publishes_its_ports_on_loopback_only(service: dict[str, Any]) -> None:
    assert [port for port in service.get("ports", []) if not port.startswith("127.0.0.1:")] == []


@every_service
def test_a_service_is_hardened(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [mount.split(":")[0] for mount in service["tmpfs"]] == ["/tmp"]  # noqa: S108 -- the container's own
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & service.keys()


@every_service
def test_a_service_has_limits(service: dict[str, Any]) -> None:
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["pids_limit"] <= 1024
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


@every_server
def test_a_server_comes_back_after_a_crash(service: dict[str, Any]) -> None:
    assert service["restart"] == "unless-stopped"


@every_service
def test_a_service_can_run_many_times(service: dict[str, Any]) -> None:
    assert "container_name" not in service


@every_service
def test_an_image_is_pinned_by_a_tag_that_names_a_version(service: dict[str, Any]) -> None:
    assert "build" in service or re.search(r":\D*\d+\.\d+|:RELEASE\.\d{4}-", service["image"])


@every_service
def test_no_secret_is_in_a_command_line(service: dict[str, Any]) -> None:
    lines = [service.get("command", []), service.get("entrypoint", []), service.get("healthcheck", {})]
    read_inside = "$(cat /run/secrets/redis-password)"  # by the shell of the container, never in an argument
    text = json.dumps(lines).replace(f"${read_inside}", "").replace("REDISCLI_AUTH", "")
    text = text.replace("$$1", "")  # the argument of a function of the shell
    assert not re.search(r"\$|secret|password|key|token", text, re.IGNORECASE)


@pytest.mark.parametrize("name", [COMPOSE, SEAWEEDFS])
def test_every_setting_that_compose_gives_the_daemon_exists(name: str) -> None:
    assert set(load(name)["services"]["app"]["environment"]) - SETTINGS == set()


def test_every_setting_that_the_image_gives_the_daemon_exists() -> None:
    names = {pair.split("=")[0] for pair in arguments("ENV")[0].split()}
    assert names - SETTINGS == {"PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}


@pytest.mark.parametrize(
    ("name", "store", "user", "password"),
    [
        (COMPOSE, "minio", "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"),
        (SEAWEEDFS, "seaweedfs", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_the_daemon_and_its_store_get_the_same_keys(name: str, store: str, user: str, password: str) -> None:
    app = load(COMPOSE)["services"]["app"]["environment"]
    server = load(name)["services"][store]["environment"]
    assert server[user] == app["AWS_ACCESS_KEY_ID"]
    assert server[password] == app["AWS_SECRET_ACCESS_KEY"]


def test_the_default_keys_are_long_enough_for_minio() -> None:
    app = load(COMPOSE)["services"]["app"]["environment"]
    assert len(app["AWS_ACCESS_KEY_ID"].partition(":-")[2].rstrip("}")) >= 3
    assert len(app["AWS_SECRET_ACCESS_KEY"].partition(":-")[2].rstrip("}")) >= 8


@pytest.mark.parametrize(
    ("name", "stores"), [(COMPOSE, {"redis", "minio"}), (SEAWEEDFS, {"redis", "seaweedfs"})]
)
def test_the_daemon_starts_when_its_stores_are_healthy(name: str, stores: set[str]) -> None:
    app = load(name)["services"]["app"]
    waits = {name: what["condition"] for name, what in app["depends_on"].items() if name != "seaweedfs-sync"}
    assert waits == dict.fromkeys(stores, "service_healthy")
    assert app["environment"]["S3_ENDPOINT_URL"].split(":")[1].strip("/") in stores


def test_the_daemon_sees_the_recordings_read_only_where_it_watches() -> None:
    app = load(COMPOSE)["services"]["app"]
    assert app["volumes"] == [f"./input:{app['environment']['WATCH_DIR']}:ro"]
    assert (ROOT / "input" / ".gitkeep").exists()


def test_the_daemon_starts_without_an_env_file() -> None:
    assert load(COMPOSE)["services"]["app"]["env_file"] == [{"path": ".env", "required": False}]


def test_docker_waits_longer_than_the_daemon_needs_to_stop() -> None:
    seconds = int(load(COMPOSE)["services"]["app"]["stop_grace_period"].rstrip("s"))
    assert seconds > UploadSettings().shutdown_grace_seconds


@pytest.mark.parametrize("name", [COMPOSE, SEAWEEDFS])
def test_every_named_volume_is_declared_and_used(name: str) -> None:
    document = load(name)
    running = [service for service in document["services"].values() if service]
    mounts = [mount.split(":")[0] for service in running for mount in service.get("volumes", [])]
    declared = {volume for volume in document["volumes"] if volume != "minio-data" or name == COMPOSE}
    assert {mount for mount in mounts if not mount.startswith("./")} == declared


def test_seaweedfs_takes_the_place_of_minio_with_checkpoints_of_its_own() -> None:
    document = load(SEAWEEDFS)
    assert document["services"]["minio"] is None
    assert document["services"]["app"]["environment"]["REDIS_NAMESPACE"]


FSYNC_RULE = """{
  "version":  1,
  "locations":  [
    {
      "locationPrefix":  "/buckets/",
      "collection":  "",
      "replication":  "",
      "ttl":  "",
      "diskType":  "",
      "fsync":  true,
      "volumeGrowthCount":  0
    }
  ]
}"""
"""As `weed shell` 4.48 prints it."""


@pytest.mark.parametrize(
    ("rules", "ends_with"),
    [
        (FSYNC_RULE, 0),
        (FSYNC_RULE.replace("true", "false"), 1),
        (FSYNC_RULE.replace("/buckets/", "/other/"), 1),
        ("", 1),
    ],
)
def test_the_daemon_waits_until_seaweedfs_syncs_the_bytes_before_it_confirms(
    rules: str, ends_with: int, tmp_path: Path
) -> None:
    app, sync = (load(SEAWEEDFS)["services"][name] for name in ("app", "seaweedfs-sync"))
    assert app["depends_on"]["seaweedfs-sync"] == {"condition": "service_completed_successfully"}
    assert sync["image"] == load(SEAWEEDFS)["services"]["seaweedfs"]["image"]
    (tmp_path / "rules").write_text(rules)
    # The first command applies the rule; what the second one is told decides.
    (tmp_path / "weed").write_text(
        f"#!/bin/sh\nread asked; echo $asked >> {tmp_path}/asked; [ $1 = shell ] || exit 1\n"
        f"case $asked in *apply) exit 0;; esac; cat {tmp_path}/rules\n"
    )
    (tmp_path / "weed").chmod(0o700)
    command = [*sync["entrypoint"], sync["command"][0].replace("$$", "$")]
    run = subprocess.run(command, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, check=False)
    assert run.returncode == ends_with
    applied, read_back = (tmp_path / "asked").read_text().splitlines()
    assert applied == "fs.configure -locationPrefix=/buckets/ -fsync -apply"
    assert read_back == "fs.configure"


def test_redis_keeps_its_checkpoints_through_a_kill_and_evicts_none() -> None:
    command = load(COMPOSE)["services"]["redis"]["command"]
    words = command[2].partition("<<")[0].replace("\\", "").split()[3:]
    options = dict(zip(words[::2], words[1::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "everysec"
    assert options["--maxmemory-policy"] == "noeviction"


def test_prometheus_finds_every_daemon_by_name() -> None:
    prometheus = load("deploy/prometheus/prometheus.yml")
    jobs = {job["job_name"]: job for job in prometheus["scrape_configs"]}
    (discovery,) = jobs["video-uploader"]["dns_sd_configs"]
    app = load(COMPOSE)["services"]["app"]
    assert discovery["names"] == ["app"]
    assert str(discovery["port"]) == app["environment"]["HTTP_PORT"] == app["ports"][0].rpartition(":")[2]
    assert prometheus["rule_files"] == ["rules/*.yml"]


def test_prometheus_reads_the_configuration_that_is_mounted() -> None:
    service = load(COMPOSE)["services"]["prometheus"]
    source, target, mode = service["volumes"][0].split(":")
    (config,) = (
        option.partition("=")[2] for option in service["command"] if option.startswith("--config.file")
    )
    assert mode == "ro"
    assert (ROOT / source / os.path.relpath(config, target)).is_file()


def test_grafana_asks_the_prometheus_of_compose_as_often_as_that_scrapes() -> None:
    (source,) = load(f"{GRAFANA}/datasources/prometheus.yml")["datasources"]
    host, _, port = source["url"].removeprefix("http://").partition(":")
    assert load(COMPOSE)["services"][host]["ports"][0].endswith(f":{port}")
    assert source["jsonData"]["timeInterval"] == prometheus_settings()["scrape_interval"]
    assert (source["type"], source["access"], source["isDefault"]) == ("prometheus", "proxy", True)


def test_grafana_finds_what_is_mounted() -> None:
    service = load(COMPOSE)["services"]["grafana"]
    mounts = dict(mount.removesuffix(":ro").split(":") for mount in service["volumes"])
    folders = {target: source for source, target in mounts.items()}
    (provider,) = load(f"{GRAFANA}/dashboards/provider.yml")["providers"]
    home = Path(service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert folders["/etc/grafana/provisioning/datasources"] == f"./{GRAFANA}/datasources"
    assert folders["/etc/grafana/provisioning/dashboards"] == f"./{GRAFANA}/dashboards"
    assert str(home.parent) == provider["options"]["path"] == "/etc/grafana/provisioning/dashboards"
    assert home.name == monitoring.DASHBOARD.name
    assert service["depends_on"] == {"prometheus": {"condition": "service_healthy"}}


def test_grafana_lets_everybody_look_and_nobody_change() -> None:
    environment = load(COMPOSE)["services"]["grafana"]["environment"]
    (provider,) = load(f"{GRAFANA}/dashboards/provider.yml")["providers"]
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert environment["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"
    assert provider["allowUiUpdates"] is False


def test_the_panels_of_the_dashboard_stand_side_by_side() -> None:
    dashboard = json.loads(monitoring.DASHBOARD.read_text())
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert x < 24
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    names = [panel["title"] for panel in dashboard["panels"]]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(set(names)) == len(names)


def test_a_panel_says_what_it_shows_in_which_unit_and_asks_the_chosen_prometheus() -> None:
    variables = {
        variable["name"] for variable in json.loads(monitoring.DASHBOARD.read_text())["templating"]["list"]
    }
    assert variables == {"datasource", "job"}
    for panel in monitoring.panels():
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        for asker in (panel, *panel["targets"]):
            assert asker["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0


def test_the_dashboard_asks_first_how_old_the_oldest_byte_is_that_is_not_in_s3() -> None:
    first = monitoring.panels()[0]
    size = first["gridPos"]
    assert first["title"] == "Oldest byte not in S3"
    assert all(size["w"] * size["h"] >= 2 * p["gridPos"]["w"] * p["gridPos"]["h"] for p in stat_panels()[1:])
    limits = [step["value"] for step in first["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]]
    rules = {rule["alert"]: rule["expr"].rpartition("> ")[2] for rule in monitoring.alerts()}
    assert limits == [
        int(rules["VideoUploaderOldestByteOld"]),
        int(rules["VideoUploaderOldestByteVeryOld"]),
    ]


def test_the_guide_explains_every_panel() -> None:
    guide = monitoring.GUIDE.read_text()
    for panel in monitoring.panels():
        assert f"| {panel['title']} |" in guide


def stat_panels() -> list[dict[str, Any]]:
    return [panel for panel in monitoring.panels() if panel["type"] == "stat"]


def prometheus_settings() -> dict[str, str]:
    settings: dict[str, str] = load("deploy/prometheus/prometheus.yml")["global"]
    return settings


def test_the_image_is_built_of_wheels_with_hashes_on_a_pinned_base() -> None:
    assert arguments("ARG") == ["PYTHON_IMAGE=python:3.13-slim-trixie"]
    assert [text.split()[0] for text in arguments("FROM")] == ["${PYTHON_IMAGE}", "${PYTHON_IMAGE}"]
    installs = [text for text in arguments("RUN") if " install " in text]
    assert len(installs) == 1
    assert "--require-hashes" in installs[0]
    assert "--only-binary :all:" in installs[0]


def test_the_image_runs_the_daemon_as_a_fixed_user_without_a_shell() -> None:
    assert arguments("USER") == ["10001:10001"]
    assert json.loads(arguments("ENTRYPOINT")[0]) == ["python", "main.py"]
    assert arguments("STOPSIGNAL") == ["SIGTERM"]
    assert "PYTHONUNBUFFERED=1" in arguments("ENV")[0]


def test_the_builder_is_sent_what_the_dockerfile_copies_and_nothing_else() -> None:
    first, *allowed = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")
    ]
    packages = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
    code = [package for package in packages if package not in {"tests", "tools", "benchmarks"}]
    assert first == "*"
    files = ["!*.py", "!pyproject.toml", "!requirements.txt"]
    assert allowed == [*files, *(f"!{package}" for package in code), "**/__pycache__"]
    assert "--chmod=0555 . ./" in arguments("COPY")


def test_the_image_has_the_files_of_the_status_page_where_the_daemon_looks() -> None:
    assert Path(page_wiring.FOLDER) == ROOT / "status" / "web"


def test_in_compose_nobody_but_the_daemon_reaches_redis() -> None:
    document = load(COMPOSE) | {"services": load(COMPOSE)["services"] | load(SEAWEEDFS)["services"]}
    reach = {
        name: set(load(COMPOSE)["services"].get(name, {}).get("networks", []))
        for name in document["services"]
    }
    for name in ("seaweedfs", "seaweedfs-sync"):
        reach[name] = set(load(SEAWEEDFS)["services"][name]["networks"])
    assert reach == {
        "app": {"edge", "records", "store"},
        "redis": {"records"},
        "minio": {"store"},
        "seaweedfs": {"store"},
        "seaweedfs-sync": {"store"},
        "prometheus": {"edge"},
        "grafana": {"edge"},
    }
    networks = load(COMPOSE)["networks"]
    assert networks["records"] == {"internal": True}
    assert min(networks) == "edge"  # where Docker publishes the port of a container of several networks
    (addresses,) = networks["edge"]["ipam"]["config"]
    assert addresses["gateway"] + "/32" in load(COMPOSE)["services"]["app"]["environment"]["STATUS_NETWORKS"]


def test_redis_of_compose_asks_for_the_password_that_the_daemon_has(tmp_path: Path) -> None:
    services = load(COMPOSE)["services"]
    secret = ROOT / load(COMPOSE)["secrets"]["redis-password"]["file"].partition(":-")[2].rstrip("}")
    environ = services["app"]["environment"]
    given = {name: environ[name] for name in ("REDIS_URL", "REDIS_PASSWORD")} | {
        "S3_ENDPOINT_URL": "http://h"
    }
    settings = load_settings(given | {"REDIS_PASSWORD_FILE": str(secret)}, None)
    assert urlsplit(settings.redis.url.get_secret_value()).password == secret.read_text().strip()
    script = (
        services["redis"]["command"][2].replace("$$", "$").replace("/run/secrets/redis-password", str(secret))
    )
    (tmp_path / "redis-server").write_text('#!/bin/sh\necho "$@"; cat\n')
    (tmp_path / "redis-server").chmod(0o700)
    run = subprocess.run(
        ["sh", "-c", script],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    arguments, config = run.stdout.splitlines()
    assert config == f'requirepass "{secret.read_text().strip()}"'
    assert secret.read_text().strip() not in arguments
    for name in ("app", "redis"):
        assert services[name]["secrets"] == ["redis-password"]
    assert environ["REDIS_PASSWORD_FILE"] == "/run/secrets/redis-password"
    assert services["redis"]["healthcheck"]["test"][3].startswith('REDISCLI_AUTH="$$(cat /run/secrets/')


def test_compose_lets_dockers_gateway_see_the_status_page_and_no_network_of_a_household() -> None:
    value = load(COMPOSE)["services"]["app"]["environment"]["STATUS_NETWORKS"]
    networks = value.removeprefix("${STATUS_NETWORKS:-").removesuffix("}")
    settings = HttpSettings.model_validate({"STATUS_NETWORKS": networks})
    access = Access(password=None, networks=settings.status_networks, names=())
    seen = {address: access.refusal(address, {"host": "localhost:8000"}) is None for address in ADDRESSES}
    assert seen == ADDRESSES


@contextmanager
def answering(status: int) -> Iterator[int]:
    """Serve `status` for every request, on the port that is given."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def health_exit_code(port: int) -> int:
    environ = {"HTTP_PORT": str(port), "http_proxy": "http://127.0.0.1:9", "PATH": os.environ["PATH"]}
    run = subprocess.run([sys.executable, *healthcheck()[1:]], env=environ, capture_output=True, check=False)
    return run.returncode


@pytest.mark.parametrize(("status", "exit_code"), [(200, 0), (503, 1), (404, 1)])
def test_the_image_is_healthy_only_if_the_daemon_says_so_whatever_proxy_is_set(
    status: int, exit_code: int
) -> None:
    with answering(status) as port:
        assert health_exit_code(port) == exit_code


def test_the_image_is_unhealthy_when_nothing_answers() -> None:
    with answering(200) as port:
        pass
    assert health_exit_code(port) != 0
