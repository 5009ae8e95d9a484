"""What can be known of the Kubernetes manifests without a cluster; none has run them yet."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import load_settings
from settings.upload import UploadSettings
from tests.project.test_deploy import COMPOSE, ROOT, SETTINGS, arguments, load

FOLDER = ROOT / "deploy" / "kubernetes"
NAME = {"app.kubernetes.io/name": "video-chunk-uploader"}
KINDS = ("ConfigMap", "Deployment", "NetworkPolicy", "PersistentVolumeClaim", "PodDisruptionBudget", "Secret")


def documents() -> dict[str, dict[str, Any]]:
    found = [yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yaml"))]
    return {document["kind"]: document for document in found}


def pod() -> dict[str, Any]:
    template: dict[str, Any] = documents()["Deployment"]["spec"]["template"]["spec"]
    return template


def container() -> dict[str, Any]:
    (only,) = pod()["containers"]
    found: dict[str, Any] = only
    return found


def image_settings() -> dict[str, str]:
    return dict(pair.split("=") for pair in arguments("ENV")[0].split())


def test_there_is_one_object_of_each_kind_with_the_same_label() -> None:
    assert sorted(documents()) == sorted(KINDS)
    assert [kind for kind, document in documents().items() if document["metadata"]["labels"] != NAME] == []
    spec = documents()["Deployment"]["spec"]
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"] == NAME
    assert documents()["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == NAME


def test_every_setting_that_kubernetes_gives_the_daemon_exists_and_is_text() -> None:
    settings = documents()["ConfigMap"]["data"] | {one["name"]: one["value"] for one in container()["env"]}
    assert set(settings) - SETTINGS == set()
    assert [name for name, value in settings.items() if not isinstance(value, str)] == []


def test_the_settings_in_the_manifests_are_valid_together(tmp_path: Path) -> None:
    secrets = documents()["Secret"]["stringData"]
    for key, value in secrets.items():
        (tmp_path / key).write_text(value)
    files = {one["name"]: one["value"].replace("/secrets", str(tmp_path)) for one in container()["env"]}
    settings = load_settings(documents()["ConfigMap"]["data"] | files, env_file=None)
    assert settings.redis.url.get_secret_value() == secrets["redis-url"]
    assert settings.s3.credentials()


def test_every_secret_comes_from_a_file_of_the_secret() -> None:
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    keys = {f"{mounts['secrets']}/{key}" for key in documents()["Secret"]["stringData"]}
    assert {one["value"] for one in container()["env"]} == keys
    assert all(one["name"].endswith("_FILE") for one in container()["env"])
    (volume,) = [volume for volume in pod()["volumes"] if volume["name"] == "secrets"]
    assert volume["secret"]["secretName"] == documents()["Secret"]["metadata"]["name"]
    assert volume["secret"]["defaultMode"] == 0o444
    shown = set(documents()["ConfigMap"]["data"])
    assert not [name for name in shown if re.search("KEY|TOKEN|PASSWORD|REDIS_URL", name)]


def test_the_container_is_hardened() -> None:
    whole, own = pod()["securityContext"], container()["securityContext"]
    assert (whole["runAsNonRoot"], f"{whole['runAsUser']}:{whole['runAsGroup']}") == (
        True,
        arguments("USER")[0],
    )
    assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod()["automountServiceAccountToken"] is False
    assert pod()["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod().keys()
    assert container()["resources"]["limits"]["memory"]


def test_only_the_memory_in_tmp_can_be_written() -> None:
    writable = [mount["name"] for mount in container()["volumeMounts"] if not mount.get("readOnly")]
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    assert writable == ["tmp"]
    assert volumes["tmp"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "64Mi"}


def test_all_replicas_read_one_shared_volume_where_the_image_watches() -> None:
    mounts = {mount["name"]: mount for mount in container()["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    claim = documents()["PersistentVolumeClaim"]
    assert documents()["Deployment"]["spec"]["replicas"] > 1
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert volumes["recordings"]["persistentVolumeClaim"] == {
        "claimName": claim["metadata"]["name"],
        "readOnly": True,
    }
    assert mounts["recordings"]["mountPath"] == image_settings()["WATCH_DIR"]
    assert documents()["ConfigMap"]["data"]["WATCH_MODE"] == "polling"


@pytest.mark.parametrize(
    ("probe", "path"),
    [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")],
)
def test_a_probe_asks_the_page_that_is_meant_for_it(probe: str, path: str) -> None:
    (port,) = container()["ports"]
    assert container()[probe]["httpGet"] == {"path": path, "port": port["name"]}
    assert str(port["containerPort"]) == image_settings()["HTTP_PORT"]
    assert "HTTP_PORT" not in documents()["ConfigMap"]["data"]


def test_prometheus_is_told_where_the_metrics_are() -> None:
    told = documents()["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert told == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": image_settings()["HTTP_PORT"],
        "prometheus.io/path": "/metrics",
    }


def test_kubernetes_waits_longer_than_the_daemon_needs_to_stop() -> None:
    grace = float(documents()["ConfigMap"]["data"]["SHUTDOWN_GRACE_SECONDS"])
    assert pod()["terminationGracePeriodSeconds"] > grace
    assert grace == UploadSettings().shutdown_grace_seconds


def test_a_drain_takes_one_daemon_at_a_time() -> None:
    spec = documents()["PodDisruptionBudget"]["spec"]
    assert spec["maxUnavailable"] == 1 < documents()["Deployment"]["spec"]["replicas"]


def test_the_image_has_the_version_of_the_project_and_the_memory_of_compose() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert container()["image"].rpartition(":")[2] == version[1]
    assert load(COMPOSE)["services"]["app"]["mem_limit"] == "1g"
    assert container()["resources"]["limits"]["memory"] == "1Gi"


def test_only_prometheus_reaches_a_daemon_and_it_reaches_only_dns_s3_and_redis() -> None:
    policy = documents()["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == NAME
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    (rule,) = policy["ingress"]
    assert [source["podSelector"]["matchLabels"] for source in rule["from"]] == [
        {"app.kubernetes.io/name": "prometheus"}
    ]
    assert [port["port"] for port in rule["ports"]] == [container()["ports"][0]["name"]]
    assert {port["port"] for one in policy["egress"] for port in one["ports"]} == {53, 443, 6379}
