"""Servers on this machine that stand for the world: a real S3 server, and a web server that wants a password."""

import base64
import functools
import hashlib
import http.server
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-only-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class _Notes(logging.Handler):
    def __init__(self, requests: list[str]) -> None:
        super().__init__(logging.INFO)
        self._requests = requests

    def emit(self, record: logging.LogRecord) -> None:
        self._requests.append(re.sub(r"\x1b\[\d+m", "", record.getMessage()))


class Bucket:
    """A bucket of an S3 server, seen with boto3 and not with featx.

    Attributes:
        name: the bucket.
        requests: what the server was asked, such as `"PUT /bucket/key HTTP/1.1"` and the status, in order.
    """

    def __init__(self, name: str, endpoint: str, requests: list[str]) -> None:
        self.name, self.requests = name, requests
        self._client = boto3.client("s3", endpoint_url=endpoint)
        self._client.create_bucket(Bucket=name)

    def upload(self, folder: Path, prefix: str) -> str:
        """Put the files of `folder` below `prefix`, and return its address."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder)}", path.read_bytes())
        return f"s3://{self.name}/{prefix}"

    def put(self, key: str, data: bytes) -> None:
        self._client.put_object(Bucket=self.name, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        content: bytes = self._client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return content

    def remove(self, key: str) -> None:
        self._client.delete_object(Bucket=self.name, Key=key)

    def keys(self, prefix: str) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=f"{prefix}/")
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def segments(self, prefix: str) -> list[str]:
        return [key for key in self.keys(prefix) if key.rpartition("/")[2].startswith("seg-")]


@contextmanager
def s3_server() -> Iterator[tuple[str, list[str]]]:
    """Run an S3 server; yield its address and the list of what it is asked."""
    requests: list[str] = []
    log = logging.getLogger("werkzeug")
    log.setLevel(logging.INFO)
    log.propagate = False
    notes = _Notes(requests)
    log.addHandler(notes)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}", requests
    finally:
        server.stop()
        log.removeHandler(notes)


class _Guarded(http.server.SimpleHTTPRequestHandler):
    """Shows a folder to those who know the password."""

    def __init__(self, *args: object, password: str, asked: list[str], etags: bool, **options: object) -> None:
        self._expected = f"Basic {base64.b64encode(password.encode()).decode()}"
        self._asked, self._has_etags = asked, etags
        super().__init__(*args, **options)  # type: ignore[arg-type]

    def send_head(self):  # type: ignore[no-untyped-def]
        self._asked.append(f"{self.command} {self.path}")
        if self.headers.get("Authorization") != self._expected:
            self.send_error(401)
            return None
        return super().send_head()

    def end_headers(self) -> None:
        path = Path(self.translate_path(self.path))
        if self._has_etags and path.is_file():
            self.send_header("ETag", f'"{hashlib.sha256(path.read_bytes()).hexdigest()}"')
        super().end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def web_server(folder: Path, password: str, *, etags: bool = True) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder over HTTP; yield host and port, and the list of what is asked."""
    asked: list[str] = []
    handler = functools.partial(_Guarded, directory=str(folder), password=password, asked=asked, etags=etags)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()
