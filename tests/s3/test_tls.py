"""S3 behind TLS: a record that was changed on its way is an outage for a moment, and no bug."""

import hashlib
import ipaddress
import os
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from errors import StoreUnavailable
from s3.bucket import ObjectStore
from tests.support.fault_proxy import FaultProxy
from tests.support.servers import s3_settings
from tests.support.slow_line import SlowLine

BODY = bytes(range(256)) * 8192
ETAG = '"no md5"'


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that signs itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    made = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now - hour, now + hour
        )
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(secret + made.public_bytes(pem))
    return path


class Handler(BaseHTTPRequestHandler):
    """Serves one object, whatever is asked for, and takes any."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.send_header("ETag", ETAG)
        self.end_headers()
        self.wfile.write(BODY)

    def do_PUT(self) -> None:
        md5 = hashlib.md5(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.send_header("ETag", f'"{md5.hexdigest()}"')
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        pass


class Server(ThreadingHTTPServer):
    """Is silent about clients that hang up."""

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@pytest.fixture
def port(certificate: Path) -> Iterator[int]:
    server = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def proxy(port: int) -> Iterator[FaultProxy]:
    with FaultProxy(port) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: FaultProxy, trusted: None) -> ObjectStore:
    return store_at(proxy.port)


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))


def store_at(port: int) -> ObjectStore:
    return ObjectStore(s3_settings(f"https://127.0.0.1:{port}"), connections=1)


def test_a_tls_record_that_was_changed_on_its_way_down_is_an_outage_and_no_bug(
    proxy: FaultProxy, store: ObjectStore
) -> None:
    proxy.flip_byte(1_000_000, to="client")
    with pytest.raises(StoreUnavailable) as damaged:
        store.get("a", at_most=len(BODY))
    assert damaged.value.kind == "unreachable"
    assert store.get("a", at_most=len(BODY)) == BODY
    proxy.flip_byte(1_000_000, to="client")
    with pytest.raises(StoreUnavailable):
        list(store.pieces("a", len(BODY)))
    assert b"".join(store.pieces("a", len(BODY))) == BODY
    assert proxy.struck == 2


def test_over_tls_too_a_timeout_is_for_progress(
    port: int, trusted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3.connections.LOOK_SECONDS", 0.05)
    with SlowLine(port, bytes_per_second=3_000_000) as line:
        store = store_at(line.port)
        clients = store._clients
        clients._config = clients._config.merge(Config(connect_timeout=1, read_timeout=0.5))
        clients.line.stall_seconds = 0.5
        for _ in range(2):  # the second one on a connection that was used
            store.put("a", bytearray(os.urandom(6_000_000)))
