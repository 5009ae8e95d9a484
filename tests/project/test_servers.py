"""The test servers and fixtures do what the tests of outages rely on."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import redis
from botocore.exceptions import EndpointConnectionError

from errors import ConfigError
from tests.conftest import served
from tests.support.servers import MotoServer, RcloneS3, ValkeyServer, wait_until


def test_valkey_keeps_its_port_and_what_it_confirmed_through_a_kill(private_valkey: ValkeyServer) -> None:
    port = private_valkey.port
    private_valkey.client.set("key", "value")
    private_valkey.kill()
    with pytest.raises(redis.ConnectionError):
        private_valkey.client.ping()
    private_valkey.start()
    assert (private_valkey.port, private_valkey.client.get("key")) == (port, b"value")


def test_a_frozen_valkey_answers_nothing_until_it_thaws(private_valkey: ValkeyServer) -> None:
    private_valkey.freeze()
    with (
        redis.Redis.from_url(private_valkey.url, socket_timeout=0.05, retry=None) as hasty,
        pytest.raises(redis.TimeoutError),
    ):
        hasty.ping()
    private_valkey.thaw()
    assert private_valkey.client.ping()


def test_a_frozen_server_still_stops(private_valkey: ValkeyServer) -> None:
    private_valkey.freeze()
    private_valkey.stop()
    assert "bye bye" in private_valkey.log()


def test_rclone_keeps_its_port_and_objects_over_a_restart(private_rclone: RcloneS3) -> None:
    private_rclone.client.create_bucket(Bucket="videos")
    private_rclone.client.put_object(Bucket="videos", Key="a/b.part", Body=b"chunk")
    private_rclone.stop()
    with pytest.raises(EndpointConnectionError):
        private_rclone.client.list_buckets()
    private_rclone.start()
    assert private_rclone.client.get_object(Bucket="videos", Key="a/b.part")["Body"].read() == b"chunk"
    assert (private_rclone.data_dir / "videos/a/b.part").read_bytes() == b"chunk"


def test_moto_takes_an_object(moto: MotoServer, moto_bucket: str) -> None:
    moto.client.put_object(Bucket=moto_bucket, Key="a.part", Body=b"chunk")
    assert moto.client.get_object(Bucket=moto_bucket, Key="a.part")["Body"].read() == b"chunk"


def test_the_bucket_of_a_test_is_new_and_a_folder_of_rclone(rclone: RcloneS3, bucket: str) -> None:
    assert "Contents" not in rclone.client.list_objects_v2(Bucket=bucket)
    assert list((rclone.data_dir / bucket).iterdir()) == []


def test_waiting_for_what_never_comes_fails_with_the_message() -> None:
    with pytest.raises(AssertionError, match="the moon is late"):
        wait_until(lambda: False, timeout_seconds=0.01, message="the moon is late")


def test_a_test_that_leaves_a_thread_behind_fails(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    (tmp_path / "test_leak.py").write_text(
        textwrap.dedent("""
            import threading
            from tests import conftest
            from tests.conftest import no_thread_outlives_its_test
            conftest._JOIN_SECONDS = 0.01

            def test_leak():
                threading.Thread(target=threading.Event().wait, name="leaky", daemon=True).start()
        """)
    )
    options = ["-q", "-p", "no:cacheprovider", "--confcutdir", str(tmp_path), str(tmp_path)]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options], cwd=root, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "threads that this test left running: ['leaky']" in result.stdout


def test_a_failure_that_names_a_file_in_no_encoding_does_not_end_the_run(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    (tmp_path / "test_names.py").write_text(
        textwrap.dedent(r"""
            def test_name():
                assert "\udcba.mp4" == ""

            def test_other():
                pass
        """)
    )
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_report_to_serializable\n")
    options = ["-n", "1", "-q", "-p", "no:cacheprovider", "--confcutdir", str(tmp_path), str(tmp_path)]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options], cwd=root, capture_output=True, text=True, check=False
    )
    assert "1 failed, 1 passed" in result.stdout, result.stdout + result.stderr


class NotInstalled(ValkeyServer):
    def start(self) -> None:
        raise ConfigError(["valkey-server is not installed"])


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_a_server_that_is_not_installed_skips_the_test_here_and_fails_it_in_ci(
    ci: str, outcome: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", ci)
    # Both are caught: a skip that got out would skip this test instead of failing it.
    with pytest.raises((pytest.skip.Exception, pytest.fail.Exception), match="not installed") as raised:
        next(served(NotInstalled(tmp_path)))
    assert raised.type is outcome
