"""Answers of a store that botocore passes on without a check end no thread."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from errors import StoreUnavailable
from s3.bucket import ObjectStore
from tests.support.servers import s3_settings


class StrangeStore(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.send_response(200)
        for name, value in {"ETag": '"x"', "Last-Modified": "garbage", "Content-Length": "3"}.items():
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self) -> None:
        size, etag = ("many", "<ETag>e</ETag>") if "uncounted" in self.path else ("1", "")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(
            "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a</Key>"
            f"<Size>{size}</Size><LastModified>2026-01-01T00:00:00Z</LastModified>{etag}</Contents>"
            "</ListBucketResult>".encode()
        )


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    with ThreadingHTTPServer(("127.0.0.1", 0), StrangeStore) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield ObjectStore(s3_settings(f"http://127.0.0.1:{server.server_port}", "b"), connections=1)
        server.shutdown()


def test_a_time_that_is_none_is_a_fault_of_the_store(store: ObjectStore) -> None:
    with pytest.raises(StoreUnavailable, match="garbage"):
        store.find("k", b"abc")


def test_a_size_that_is_no_number_is_a_fault_of_the_store(store: ObjectStore) -> None:
    with pytest.raises(StoreUnavailable, match="many"):
        list(store.objects("uncounted"))


def test_a_list_without_etags_is_a_fault_of_the_store(store: ObjectStore) -> None:
    with pytest.raises(StoreUnavailable, match="ETag"):
        list(store.objects("bare"))
