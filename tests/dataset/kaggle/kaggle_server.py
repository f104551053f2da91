"""A server on loopback that speaks Kaggle's protocol, as `kagglesdk` 0.1 does, and can fail in all the usual ways.

A POST of JSON to `/v1/SERVICE/METHOD` is answered with a redirect to another host, as Kaggle's own is to where its
files lie; errors are JSON with `code` and `message`. The archive comes from there, in ranges if asked for.
"""

import io
import json
import re
import sys
import threading
import zipfile
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DATASET = "/v1/datasets.DatasetApiService/DownloadDataset"
COMPETITION = "/v1/competitions.CompetitionApiService/DownloadDataFiles"
SIGNATURE = "X-Goog-Signature=5161a7u2e"

#: Starts featx with Kaggle at the address that is the first word.
PROGRAM = """
import sys
from kagglesdk import kaggle_env
kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.PROD] = sys.argv[1]
from featx.__main__ import run
sys.argv = ["featx", *sys.argv[2:]]
run()
"""


def command(kaggle: "Kaggle", *words: object) -> list[str]:
    """Return the command that runs featx in a process of its own."""
    return [sys.executable, "-c", PROGRAM, kaggle.url, *map(str, words)]


def zipped(files: Mapping[str, bytes | str], method: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip file with these files, names as they are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as zip_file:
        for name, content in files.items():
            zip_file.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    host: str
    path: str
    headers: dict[str, str]
    body: Any = None


@dataclass
class Kaggle:
    """What is at Kaggle, how it behaves, and what it has been asked.

    Attributes:
        archives: zip files, by `owner/name`, `owner/name/versions/1` or `competition:name`.
        errors: (status, message) by slug, for those who are nobody in particular and for those who sign in.
        private: slugs that need one of `accepted` as the Authorization header.
        cuts: after so many bytes of the file the connection is cut, one number for each GET.
        stalls: the same, but the connection stays, and nothing more comes until `released` is set.
        wrong_ranges: whether the rest that is asked for comes without its beginning.
        endless: what never ends: `archive`, which has no length then, `part`, `error` or `redirect`.
        n_endless: bytes of it that were sent.
        etag: the name of the bytes; None for a server that has none.
    """

    url: str = ""
    archives: dict[str, bytes] = field(default_factory=dict)
    errors: dict[str, tuple[int, str]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    accepted: set[str] = field(default_factory=set)
    cuts: list[int] = field(default_factory=list)
    stalls: list[int] = field(default_factory=list)
    endless: set[str] = field(default_factory=set)
    n_endless: int = 0
    etag: str | None = '"first"'
    ranges: bool = True
    wrong_ranges: bool = False
    html: bool = False
    seen: list[Seen] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def asked(self, method: str) -> list[Seen]:
        """Return the requests of this method."""
        return [request for request in self.seen if request.method == method]

    def ranges_asked(self) -> list[str]:
        """Return the ranges that were asked for."""
        return [request.headers["Range"] for request in self.seen if "Range" in request.headers]

    def authorizations(self, method: str) -> list[str]:
        """Return the Authorization headers of the requests of this method; empty for none."""
        return [request.headers.get("Authorization", "") for request in self.asked(method)]


def bearer(token: str) -> str:
    return f"Bearer {token}"


def basic(user: str, key: str) -> str:
    return f"Basic {b64encode(f'{user}:{key}'.encode()).decode()}"


@contextmanager
def serving() -> Iterator[Kaggle]:
    """Yield a server that answers until the block is left."""
    kaggle = Kaggle()

    class Handler(_Handler):
        at_kaggle = kaggle

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    kaggle.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield kaggle
    finally:
        kaggle.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    at_kaggle: Kaggle

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True  # the client was killed, or has what it wants

    def _note(self, body: Any = None) -> None:
        host = self.headers["Host"].split(":")[0]
        self.at_kaggle.seen.append(Seen(self.command, host, self.path, dict(self.headers), body))

    def _send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def _send_for_ever(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Transfer-Encoding": "chunked", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        while True:
            self.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
            self.at_kaggle.n_endless += 0x10000

    def _refuse(self, status: int, message: str) -> None:
        if self.at_kaggle.html:
            self._send(status, f"<html>{message}</html>".encode(), Content_Type="text/html")
        else:
            content = json.dumps({"code": status, "message": message}).encode()
            self._send(status, content, Content_Type="application/json; charset=utf-8")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._note(body)
        if self.path == COMPETITION:
            slug = f"competition:{body['competitionName']}"
        elif self.path == DATASET:
            version = f"/versions/{body['datasetVersionNumber']}" if body.get("datasetVersionNumber") else ""
            slug = f"{body['ownerSlug']}/{body['datasetSlug']}{version}"
        else:
            return self._refuse(404, "no such method")
        kaggle = self.at_kaggle
        if "error" in kaggle.endless:
            self._send_for_ever(403, Content_Type="application/json")
        if slug in kaggle.private and self.headers.get("Authorization") not in kaggle.accepted:
            return self._refuse(401 if slug.startswith("competition:") else 403, "Permission 'datasets.get' was denied")
        if slug in kaggle.errors:
            return self._refuse(*kaggle.errors[slug])
        if slug not in kaggle.archives:
            return self._refuse(404, "Not found")
        port = kaggle.url.rsplit(":", 1)[1]
        location = f"http://localhost:{port}/files/{slug}/archive.zip?{SIGNATURE}"
        if "redirect" in kaggle.endless:
            self._send_for_ever(302, Location=location)
        return self._send(302, b"", Location=location)

    def do_GET(self) -> None:
        self._note()
        kaggle = self.at_kaggle
        content = kaggle.archives[self.path.removeprefix("/files/").split("/archive.zip")[0]]
        headers = {"Accept-Ranges": "bytes"} if kaggle.ranges else {}
        if kaggle.etag:
            headers["ETag"] = kaggle.etag
        wanted = self._wanted()
        if "archive" in kaggle.endless:
            self._send_for_ever(200)
        start, end = wanted or (0, len(content))
        end = min(end, len(content))
        if start >= len(content):
            return self._refuse(416, "range not satisfiable")
        status = 206 if wanted else 200
        if status == 206 and kaggle.wrong_ranges:
            start += 100
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
            if "part" in kaggle.endless:
                self._send_for_ever(206, **headers)
        self.send_response(status)
        for name, value in {"Content-Length": str(end - start), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        return self._send_body(content[start:end])

    def _wanted(self) -> tuple[int, int] | None:
        """Return the first byte that is wanted and the one after the last; None if all are, or they are others now."""
        kaggle = self.at_kaggle
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        same = self.headers.get("If-Range", kaggle.etag) == kaggle.etag
        if not (match and same and kaggle.ranges):
            return None
        return int(match[1]), int(match[2]) + 1 if match[2] else sys.maxsize

    def _send_body(self, content: bytes) -> None:
        kaggle = self.at_kaggle
        if kaggle.cuts:
            self.wfile.write(content[: kaggle.cuts.pop(0)])
            self.close_connection = True
        elif kaggle.stalls:
            n_bytes = kaggle.stalls.pop(0)
            self.wfile.write(content[:n_bytes])
            self.wfile.flush()
            kaggle.stalled.set()
            kaggle.released.wait(60)
            self.wfile.write(content[n_bytes:])
        else:
            self.wfile.write(content)
