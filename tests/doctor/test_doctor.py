"""`doctor` on a good set-up, and on one that is broken in each way that it looks at."""

import json
import logging
import os
import re
import resource
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import botocore.session
import pytest
from botocore.loaders import Loader
from watchdog.observers.polling import PollingObserver

from cli.doctor import print_findings
from cli.output import Output
from config import Settings, load_settings
from doctor import folder as doctor_folder
from doctor import redis as doctor_redis
from doctor import s3 as doctor_store
from doctor.finding import Finding
from doctor.folder import check_descriptors, check_folder
from doctor.redis import check_redis
from doctor.run import run_checks
from doctor.s3 import ProbedStore, check_store
from folder import file_systems
from settings.group import Secret
from settings.redis import RedisSettings
from tests.support.fault_proxy import FaultProxy
from tests.support.fault_server import Answer, FaultServer, Request
from tests.support.harness import CHUNK
from tests.support.rights import bound_by_file_modes
from tests.support.servers import MotoServer, RcloneS3, S3Server, ValkeyServer, free_port, s3_settings

SERVICE_MODELS = Loader()

ROOT = Path(__file__).parents[2]
STORE_IDENTITY = "bucket videos, prefix (none)"


@pytest.fixture(autouse=True)
def s3_is_read_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all clients share botocore's description of S3: to read it takes longer than all the rest."""

    def share(session: Any) -> None:
        session._components.register_component("data_loader", SERVICE_MODELS)

    monkeypatch.setattr(botocore.session.Session, "_register_data_loader", share)


def environment(folder: Path, valkey: ValkeyServer, s3: S3Server, bucket: str) -> dict[str, str]:
    return {
        "WATCH_DIR": str(folder),
        "CHUNK_SIZE": str(CHUNK),
        "REDIS_URL": valkey.url,
        "S3_ENDPOINT_URL": s3.endpoint_url,
        "S3_BUCKET": bucket,
        "S3_PREFIX": "cams/",
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
    }


@pytest.fixture
def settings(
    tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, bucket: str, redis_namespace: str
) -> Settings:
    folder = tmp_path / "input"
    (folder / "cam").mkdir(parents=True)
    (folder / "cam" / "a.mp4").write_bytes(b"content")
    given = environment(folder, valkey, rclone, bucket) | {"REDIS_NAMESPACE": redis_namespace}
    return load_settings(given, env_file=None)


def only(found: list[Finding], check: str) -> Finding:
    (finding,) = (each for each in found if each.check == check)
    return finding


def levels(found: list[Finding]) -> dict[str, str]:
    return {each.check: each.level for each in found if each.level != "ok"}


def keys(s3: S3Server, bucket: str) -> list[str]:
    return [item["Key"] for item in s3.client.list_objects_v2(Bucket=bucket).get("Contents", ())]


# ---------------------------------------------------------------------- all is well


def test_a_good_setup_is_all_green_and_nothing_stays_of_the_probes(
    settings: Settings, valkey: ValkeyServer, rclone: RcloneS3, bucket: str, redis_namespace: str
) -> None:
    doing: list[str] = []
    found = run_checks(settings, doing=doing.append)
    assert levels(found) == {}
    assert len(found) == len({each.check for each in found}) == 23
    assert not [each for each in found if each.hint]
    assert len(doing) == 3
    assert "refuses" in only(found, "S3 checksum").said
    assert sorted(path.name for path in settings.folder.watch_dir.rglob("*")) == ["a.mp4", "cam"]
    assert keys(rclone, bucket) == []
    assert valkey.client.keys(f"*{redis_namespace}*") == []


def test_what_is_sent_is_no_recordings_key(settings: Settings, rclone: RcloneS3, bucket: str) -> None:
    with FaultServer(rclone.port) as server:
        run_checks(settings.replaced(s3={"endpoint_url": server.endpoint_url}))
    paths = {request.path for request in server.requests if request.method in ("PUT", "DELETE")}
    (path,) = paths
    assert path.startswith(f"/{bucket}/cams/.doctor-")
    sizes = [request.size for request in server.requests if request.method == "PUT"]
    assert CHUNK in sizes
    assert [request.method for request in server.requests if request.path == path][-1] == "DELETE"


# ---------------------------------------------------------------------- the folder


def folder_findings(root: Path, mode: str = "auto", patterns: tuple[str, ...] = ("*.mp4",)) -> list[Finding]:
    return check_folder(str(root), patterns=patterns, mode=mode)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder with `cam/a.mp4` in which nobody may write."""
    folder = tmp_path / "read-only"
    (folder / "cam").mkdir(parents=True)
    (folder / "cam" / "a.mp4").touch()
    folder.chmod(0o555)
    yield folder
    for path in (folder, folder / "cam"):  # so that pytest can delete it
        path.chmod(0o755)


def in_a_namespace(folder: Path, program: str) -> list[Finding]:
    """Return what a program finds as root of namespaces of its own, where limits concern nobody else."""
    command = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no namespaces here: {error}")
    begin = "import json, subprocess, sys\nfrom pathlib import Path\nfrom doctor.folder import check_folder\n"
    end = "\nprint(json.dumps(check_folder(sys.argv[1], patterns=('*.mp4',), mode='auto')))"
    found = subprocess.run(
        [*command, sys.executable, "-c", begin + textwrap.dedent(program) + end, str(folder)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert found.returncode == 0, found.stderr
    return [Finding(*each) for each in json.loads(found.stdout)]


def test_a_missing_folder_is_a_problem(tmp_path: Path) -> None:
    found = folder_findings(tmp_path / "nowhere")
    assert levels(found) == {"folder": "problem", "file events": "unchecked"}
    assert "WATCH_DIR" in found[0].hint


def test_a_file_in_the_folders_place_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert levels(folder_findings(tmp_path / "file"))["folder"] == "problem"


def test_a_folder_that_may_not_be_read_is_a_problem(read_only: Path) -> None:
    read_only.chmod(0)
    with bound_by_file_modes():
        found = only(folder_findings(read_only), "folder")
    assert (found.level, "Permission denied" in found.said) == ("problem", True)
    assert "let the daemon's user read it" in found.hint


def test_where_no_probe_may_be_written_it_says_so(read_only: Path) -> None:
    with bound_by_file_modes():
        found = folder_findings(read_only)
    assert levels(found) == {"file events": "unchecked"}
    assert "the recorder's user" in only(found, "file events").hint


def test_a_volume_that_is_mounted_read_only_gets_no_probe(tmp_path: Path) -> None:
    found = in_a_namespace(
        tmp_path,
        """
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", sys.argv[1]], check=True)
        """,
    )
    assert levels(found) == {"file events": "unchecked"}
    assert "Read-only file system" in only(found, "file events").said


def test_a_pattern_that_takes_hidden_files_gets_no_probe(tmp_path: Path) -> None:
    found = only(folder_findings(tmp_path, patterns=("*.mp4", ".*")), "file events")
    assert (found.level, "FILE_PATTERNS" in found.said) == ("unchecked", True)


def test_events_that_do_not_come_are_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernels of the tests tell of every file; an observer that looks once an hour does not.
    monkeypatch.setattr(doctor_folder, "Observer", lambda: PollingObserver(timeout=3600))
    monkeypatch.setattr(doctor_folder, "EVENT_SECONDS", 0.05)
    found = only(folder_findings(tmp_path), "file events")
    assert found.level == "warning"
    assert "created, modified, moved" in found.said
    assert "WATCH_MODE=polling" in found.hint
    assert list(tmp_path.iterdir()) == []


def test_what_watchdog_says_while_it_is_stopped_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Talkative(PollingObserver):
        """The native one says this too, but only now and then."""

        def stop(self) -> None:
            logging.getLogger("watchdog.observers.inotify").error("the thread is inactive")
            super().stop()

    monkeypatch.setattr(doctor_folder, "Observer", lambda: Talkative(timeout=3600))
    monkeypatch.setattr(doctor_folder, "EVENT_SECONDS", 0.0)
    folder_findings(tmp_path)
    assert caplog.records == []
    logging.getLogger("watchdog.observers.inotify").error("shown again")
    assert len(caplog.records) == 1


def test_without_an_inotify_instance_events_are_warned_of(tmp_path: Path) -> None:
    found = in_a_namespace(tmp_path, 'Path("/proc/sys/user/max_inotify_instances").write_text("0")')
    assert levels(found) == {"file events": "warning"}
    assert "fs.inotify.max_user_instances" in only(found, "file events").hint


@pytest.mark.parametrize(("mode", "level"), [("auto", "ok"), ("polling", "ok"), ("native", "warning")])
def test_a_silent_file_system_needs_polling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, level: str
) -> None:
    # The file system of the tests plays the silent one.
    monkeypatch.setattr(file_systems, "_SILENT", ("",))
    found = only(folder_findings(tmp_path, mode), "file events")
    assert found.level == level
    assert ("WATCH_MODE=auto or polling" in found.hint) == (level == "warning")


def test_more_folders_than_the_kernel_watches_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "limit"
    limit.write_text("5\n")
    monkeypatch.setattr(file_systems, "_MAX_WATCHES", str(limit))
    assert levels(folder_findings(tmp_path)) == {}
    for name in "abcd":
        (tmp_path / name).mkdir()
    found = only(folder_findings(tmp_path), "watch limit")
    assert (found.level, "5 of 5" in found.said) == ("warning", True)
    assert "fs.inotify.max_user_watches" in found.hint
    assert levels(folder_findings(tmp_path, "polling")) == {}


def test_links_are_warned_of(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "a.mp4").symlink_to("nowhere")
    (tmp_path / "notes.txt").symlink_to("nowhere")
    found = only(folder_findings(tmp_path), "links")
    assert (found.level, "2, such as" in found.said) == ("warning", True)
    assert "mount (--bind)" in found.hint


def test_videos_that_match_no_pattern_are_warned_of(tmp_path: Path) -> None:
    for name in ("a.mkv", "b.ts", "notes.txt", "good.mp4"):
        (tmp_path / name).write_bytes(b"x")
    found = only(folder_findings(tmp_path), "patterns")
    assert (found.level, "2, such as" in found.said) == ("warning", True)
    assert "FILE_PATTERNS" in found.hint


@pytest.mark.parametrize("closed", ["cam", "cam/a.mp4"])
def test_what_cannot_be_read_is_a_problem(read_only: Path, closed: str) -> None:
    (read_only / closed).chmod(0)
    with bound_by_file_modes():
        found = only(folder_findings(read_only), "reading")
    assert found.level == "problem"
    assert found.said.endswith(closed)
    assert "chmod -R a+rX" in found.hint


def test_a_huge_folder_is_only_looked_at_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_folder, "MAX_ENTRIES", 3)
    for number in range(4):
        (tmp_path / f"{number}.mp4").touch()
    assert "more than 1 folders, 3 recordings" in only(folder_findings(tmp_path), "folder").said


def test_too_few_open_files_are_a_problem() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 200), hard))
    try:
        assert check_descriptors(upload_workers=4).level == "ok"
        found = check_descriptors(upload_workers=64)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found.level == "problem"
    assert "LimitNOFILE" in found.hint


# ---------------------------------------------------------------------- S3


def store_findings(
    s3: S3Server, bucket: str, url: str = "", *, secret: str = "", **more: Any
) -> list[Finding]:
    store = ProbedStore(
        s3_settings(url or s3.endpoint_url, bucket, secret_key=secret or s3.secret_key), connections=1
    )
    wanted: dict[str, Any] = {"prefix": "", "chunk_size": 2_000_000, "encrypted": False} | more
    return check_store(store, **wanted)


def test_a_store_that_is_not_there_is_a_problem(rclone: RcloneS3) -> None:
    found = store_findings(rclone, "videos", f"http://127.0.0.1:{free_port()}")
    assert levels(found) == {"S3 bucket": "problem", "clock": "unchecked", "S3 rights": "unchecked"}
    assert "S3_ENDPOINT_URL" in found[0].hint


def test_a_missing_bucket_is_a_problem_and_is_not_made(rclone: RcloneS3) -> None:
    found = store_findings(rclone, "nowhere")
    assert levels(found) == {"S3 bucket": "problem", "S3 rights": "unchecked"}
    assert "create the bucket" in found[0].hint
    assert not (rclone.data_dir / "nowhere").exists()


def test_wrong_keys_are_a_problem_and_are_not_shown(rclone: RcloneS3, bucket: str) -> None:
    found = store_findings(rclone, bucket, secret="another-secret")
    assert levels(found) == {"S3 bucket": "problem", "S3 rights": "unchecked"}
    assert "AWS_SECRET_ACCESS_KEY" in found[0].hint
    assert "another-secret" not in repr(found)


@pytest.mark.parametrize(
    ("right", "told", "refused"),
    [
        ("s3:PutObject", ("S3 put", "problem"), {"method": "PUT"}),
        ("s3:ListBucket", ("S3 list", "problem"), {"method": "GET", "times": 1}),  # the list comes first
        ("s3:GetObject", ("S3 get", "problem"), {"method": "GET", "containing": ".doctor"}),
        ("s3:GetObject", ("S3 get", "problem"), {"method": "HEAD", "containing": ".doctor"}),
        ("s3:DeleteObject", ("S3 delete", "warning"), {"method": "DELETE"}),
    ],
)
def test_a_missing_right_is_named(
    rclone: RcloneS3, bucket: str, right: str, told: tuple[str, str], refused: dict[str, Any]
) -> None:
    check, level = told
    with FaultServer(rclone.port) as server:
        server.fail(403, "AccessDenied", **refused)
        found = store_findings(rclone, bucket, server.endpoint_url)
    missing = levels(found)
    missing.pop("S3 get and list", None)
    assert missing == {check: level}
    assert right in only(found, check).hint
    assert (keys(rclone, bucket) == []) == (check != "S3 delete")


def test_the_probe_goes_also_when_it_is_interrupted(
    rclone: RcloneS3, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **_more: object) -> Finding:
        assert len(keys(rclone, bucket)) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor_store, "_speed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store_findings(rclone, bucket)
    assert keys(rclone, bucket) == []


def test_a_store_that_shows_nothing_of_what_it_took_is_a_problem(rclone: RcloneS3) -> None:
    with FaultServer() as server:  # takes everything and keeps nothing
        found = store_findings(rclone, "videos", server.endpoint_url)
    assert {check: level for check, level in levels(found).items() if level == "problem"} == {
        "S3 list": "problem",
        "S3 get": "problem",
    }
    assert "another store" in only(found, "S3 list").hint


def test_a_store_that_takes_damage_but_tells_the_md5_is_fine(rclone: RcloneS3) -> None:
    with FaultServer() as server:
        found = only(store_findings(rclone, "videos", server.endpoint_url), "S3 checksum")
    assert (found.level, "its ETag is one" in found.said) == ("ok", True)


@pytest.mark.parametrize(("encrypted", "level"), [("TLS", "warning"), ("", "problem")])
def test_a_store_that_cannot_notice_damage_is_told_of(
    rclone: RcloneS3, bucket: str, encrypted: str, level: str
) -> None:
    with FaultServer(rclone.port) as server:
        server.answer(200, headers={"ETag": '"opaque"'}, method="PUT")
        server.answer(204, method="DELETE")
        found = only(
            store_findings(rclone, bucket, server.endpoint_url, encrypted=bool(encrypted)), "S3 checksum"
        )
    assert found.level == level
    assert "checks Content-MD5" in found.hint


def test_moto_is_judged_as_well(moto: MotoServer, moto_bucket: str) -> None:
    assert levels(store_findings(moto, moto_bucket)) == {}
    assert keys(moto, moto_bucket) == []


@contextmanager
def another_clock(server: FaultServer, behind: float) -> Iterator[None]:
    """Let a server's answers tell another time."""
    with pytest.MonkeyPatch.context() as patch:
        handler = server._server.RequestHandlerClass
        patch.setattr(handler, "date_time_string", lambda *_: formatdate(time() - behind, usegmt=True))
        yield


@pytest.mark.parametrize(
    ("ahead", "level", "said"),
    [(-90, "warning", "behind"), (90, "warning", "ahead"), (3600, "problem", "15 minutes")],
)
def test_another_clock_is_told_of(rclone: RcloneS3, ahead: int, level: str, said: str) -> None:
    with FaultServer() as server, another_clock(server, ahead):
        server.answer(403, method="PUT")
        found = only(store_findings(rclone, "videos", server.endpoint_url), "clock")
    assert (found.level, said in found.said) == (level, True)
    assert "set this machine's clock" in found.hint


def test_a_refusal_for_the_clock_names_it(rclone: RcloneS3) -> None:
    with FaultServer() as server, another_clock(server, -7200):
        server.fail(403, "RequestTimeTooSkewed")
        found = store_findings(rclone, "videos", server.endpoint_url)
    assert levels(found) == {"S3 bucket": "problem", "clock": "problem", "S3 rights": "unchecked"}


def test_a_slow_store_is_warned_of_after_a_trial(
    rclone: RcloneS3, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_store, "TRIAL_BYTES", 100_000)
    with FaultProxy(rclone.port) as proxy:
        proxy.throttle(200_000)
        found = store_findings(rclone, bucket, f"http://127.0.0.1:{proxy.port}", chunk_size=512 * 1024 * 1024)
    slow = only(found, "S3 speed")
    assert (slow.level, slow.said.startswith("0.1 MB in")) == ("warning", True)
    assert "a chunk of 536.9 MB takes" in slow.said
    assert "lower bitrate" in slow.hint


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (400, "EntityTooLarge", "set a smaller CHUNK_SIZE"),
        (507, "XMinioStorageFull", "make room in the store"),  # MinIO keeps a small object with its record
        (500, "InternalError", "room in the store"),
    ],
)
def test_a_chunk_that_the_store_refuses_is_a_problem(
    rclone: RcloneS3, bucket: str, status: int, code: str, hint: str
) -> None:
    with FaultServer(rclone.port) as server:
        take = server.take

        def refuse_what_is_large(request: Request) -> Answer | None:
            if request.size > doctor_store.TRIAL_BYTES:
                server.fail(status, code, method="PUT", times=1)
            return take(request)

        server.take = refuse_what_is_large  # type: ignore[method-assign]
        found = store_findings(rclone, bucket, server.endpoint_url)
    assert levels(found) == {"S3 speed": "problem"}
    assert hint in only(found, "S3 speed").hint
    assert keys(rclone, bucket) == []


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (507, "XMinioStorageFull", "make room in the store"),
        (500, "InternalError", "see whether the store is full"),  # of SeaweedFS
    ],
)
def test_a_store_that_is_full_for_any_object_is_told_as_that(
    rclone: RcloneS3, bucket: str, status: int, code: str, hint: str
) -> None:
    with FaultServer(rclone.port) as server:
        server.fail(status, code, method="PUT")
        found = store_findings(rclone, bucket, server.endpoint_url)
    assert hint in only(found, "S3 put").hint


# ---------------------------------------------------------------------- Redis


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A Valkey whose configuration the tests of this module change."""
    from tests.conftest import served  # noqa: PLC0415 - a fixture's body, shared

    yield from served(ValkeyServer(tmp_path_factory.mktemp("doctor") / "valkey"))


@contextmanager
def configured(server: ValkeyServer, **config: str) -> Iterator[None]:
    before: Any = server.client.config_get(*config)
    server.client.config_set(*[part for pair in config.items() for part in pair])
    try:
        yield
    finally:
        server.client.config_set(*[part for pair in before.items() for part in pair])


def redis_findings(url: str, namespace: str = "ns") -> list[Finding]:
    settings = RedisSettings(REDIS_URL=Secret(url), REDIS_NAMESPACE=namespace)
    return check_redis(settings, store_identity=STORE_IDENTITY, owner="test")


def test_a_redis_that_is_not_there_is_a_problem() -> None:
    found = redis_findings(f"redis://127.0.0.1:{free_port()}/0")
    assert [each.level for each in found] == ["problem", "unchecked"]
    assert "REDIS_URL" in found[0].hint


def test_a_wrong_password_is_a_problem_and_is_not_shown(server: ValkeyServer) -> None:
    found = redis_findings(server.url.replace(server.password, "another-secret"))
    assert [each.level for each in found] == ["problem", "unchecked"]
    assert "password" in found[0].hint
    assert "another-secret" not in repr(found)


def test_a_slow_redis_is_warned_of(server: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_redis, "SLOW_SECONDS", 0.0)
    found = redis_findings(server.url)
    assert levels(found) == {"Redis": "warning"}
    assert "nearer" in found[0].hint


@pytest.mark.parametrize(
    ("config", "check", "level", "hint"),
    [
        ({"appendonly": "no"}, "Redis persistence", "warning", "appendonly yes"),
        ({"appendfsync": "no"}, "Redis persistence", "warning", "appendfsync everysec"),
        ({"maxmemory-policy": "allkeys-lru"}, "Redis eviction", "warning", "noeviction"),
        (
            {"maxmemory-policy": "allkeys-lru", "maxmemory": "100mb"},
            "Redis eviction",
            "problem",
            "noeviction",
        ),
    ],
)
def test_a_redis_that_may_lose_records_is_told_of(
    server: ValkeyServer, config: dict[str, str], check: str, level: str, hint: str
) -> None:
    with configured(server, **config):
        found = redis_findings(server.url)
    assert levels(found) == {check: level}
    assert hint in only(found, check).hint


def test_keys_that_do_not_expire_are_safe_from_a_volatile_policy(server: ValkeyServer) -> None:
    with configured(server, **{"maxmemory-policy": "volatile-ttl", "maxmemory": "100mb"}):
        assert levels(redis_findings(server.url)) == {}


def test_little_memory_is_warned_of(server: ValkeyServer) -> None:
    used = server.client.info("memory")["used_memory"]
    with configured(server, maxmemory=str(used * 10 // 9)):
        found = redis_findings(server.url)
    assert levels(found) == {"Redis memory": "warning"}
    assert "maxmemory" in only(found, "Redis memory").hint


def test_a_full_memory_is_a_problem(server: ValkeyServer) -> None:
    with configured(server, maxmemory="1"):
        found = redis_findings(server.url)
    assert levels(found) == {"Redis rights": "problem", "Redis memory": "warning"}
    assert "raise maxmemory" in only(found, "Redis rights").hint


def test_a_replica_is_a_problem(server: ValkeyServer) -> None:
    server.client.replicaof("127.0.0.1", "1")
    try:
        found = redis_findings(server.url)
    finally:
        server.client.replicaof("no", "one")
    assert levels(found) == {"Redis rights": "problem", "Redis role": "problem"}
    assert "primary" in only(found, "Redis role").hint
    assert "primary" in only(found, "Redis rights").hint


@contextmanager
def user(server: ValkeyServer, *rules: str) -> Iterator[str]:
    """The URL of a user who may do everything but what the rules say."""
    client: Any = server.client
    client.execute_command("ACL", "SETUSER", "guest", "on", ">guest", "~*", "&*", "+@all", *rules)
    try:
        yield server.url.replace(f":{server.password}", "guest:guest")
    finally:
        client.acl_deluser("guest")


@pytest.mark.parametrize("command", ["set", "del", "evalsha"])
def test_a_right_that_is_missing_is_a_problem(server: ValkeyServer, command: str) -> None:
    with user(server, f"-{command}") as url:
        found = redis_findings(url)
    assert levels(found) == {"Redis rights": "problem"}
    assert command in only(found, "Redis rights").said
    assert "rights" in only(found, "Redis rights").hint or "commands" in only(found, "Redis rights").hint


def test_what_a_provider_does_not_tell_could_not_be_checked(server: ValkeyServer) -> None:
    with user(server, "-config") as url:
        found = redis_findings(url)
        assert levels(found) == {}
        assert "does not tell us" in only(found, "Redis persistence").said
    with user(server, "-config", "-info") as url:
        found = redis_findings(url)
    assert levels(found) == dict.fromkeys(
        ("Redis role", "Redis persistence", "Redis eviction", "Redis memory"), "unchecked"
    )
    assert all("provider's console" in each.hint for each in found if each.level == "unchecked")


def test_records_of_another_bucket_or_layout_are_a_problem(
    server: ValkeyServer, redis_namespace: str
) -> None:
    base = f"{{{redis_namespace}}}:"
    server.client.set(base + "home", "bucket films, prefix (none)")
    found = redis_findings(server.url, redis_namespace)
    assert levels(found) == {"Redis records": "problem"}
    assert only(found, "Redis records").hint.startswith("choose another REDIS_NAMESPACE")
    server.client.set(base + "schema", "99")
    assert "layout 99" in only(redis_findings(server.url, redis_namespace), "Redis records").said


# ---------------------------------------------------------------------- the command


def run(folder: Path, variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "main.py"), "doctor", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        env={**os.environ, **variables},
    )


def test_the_command_prints_findings_and_ends_with_0_when_recording_is_safe(
    tmp_path: Path, valkey: ValkeyServer, rclone: RcloneS3, bucket: str, redis_namespace: str
) -> None:
    (tmp_path / "cam").symlink_to(tmp_path)  # a warning
    variables = environment(tmp_path, valkey, rclone, bucket) | {"REDIS_NAMESPACE": redis_namespace}
    done = run(tmp_path, variables)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len([line for line in lines if line.startswith("ok ")]) == 22
    warning = next(number for number, line in enumerate(lines) if line.startswith("warning "))
    assert lines[warning + 1].lstrip().startswith("hint: record into the watched folder")
    assert done.stderr == "recording is safe: 23 checks, 0 problems, 1 warning\n"


def test_the_command_ends_with_1_when_recording_would_not_be_safe(tmp_path: Path) -> None:
    variables = {
        "WATCH_DIR": str(tmp_path / "nowhere"),
        "S3_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
        "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    done = run(tmp_path, variables, "--json")
    assert done.returncode == 1, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    problems = [each for each in found if each["level"] == "problem"]
    assert [each["check"] for each in problems] == ["folder", "S3 bucket", "Redis"]
    assert all(each["said"] and each["hint"] for each in problems)
    assert done.stderr.startswith("recording would not be safe:")


def test_the_command_wants_the_settings_of_the_daemon(tmp_path: Path) -> None:
    done = run(tmp_path, {})
    assert done.returncode == 2
    assert "REDIS_URL is not set" in done.stderr


def test_the_command_brings_its_own_servers_and_leaves_them_empty(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    done = run(tmp_path, {}, "--embedded")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((tmp_path / "data" / "objects" / "videos").iterdir()) == []
    assert (tmp_path / "data" / "embedded.lock").read_bytes() == b""


def test_a_terminal_gets_a_table_with_every_word(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORCE_COLOR", "1")
        patch.setenv("COLUMNS", "60")
        print_findings(
            Output(),
            [
                Finding("S3 put", "problem", "refused " * 12, "give it\x1b[2J the right"),
                Finding("a", "ok", "b"),
            ],
        )
    said = capsys.readouterr().out
    assert said.count("refused") == 12
    assert "\x1b[31mproblem" in said
    assert "→ give it\\x1b[2J the right" in said
    assert max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in said.splitlines()) <= 60
