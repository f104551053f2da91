"""A web server on this machine that never ends: its answers, its listings, or its silence."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class HostileWeb:
    """How the server behaves, by path, and what it was asked.

    Attributes:
        host: host and port.
        files: sound files, by path.
        pages: HTML, by path.
        endless: paths whose bodies never end.
        stalled: paths that are never answered.
        half: paths whose bodies stop in the middle, and never go on.
        deep: every path that ends in a slash lists another folder.
        asked: what was asked, in order.
        n_sent: bytes of endless bodies that were sent.
        is_stalled: set when a request waits.
        released: lets those that wait go.
    """

    host: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)
    endless: set[str] = field(default_factory=set)
    stalled: set[str] = field(default_factory=set)
    half: set[str] = field(default_factory=set)
    deep: bool = False
    asked: list[str] = field(default_factory=list)
    n_sent: int = 0
    is_stalled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def list_files(self, folder: str = "/photos") -> str:
        """Make pages of all files and paths below `folder`; return its address."""
        names: dict[str, set[str]] = {}
        for path in {*self.files, *self.endless, *self.stalled, *self.half}:
            parts = path.removeprefix(f"{folder}/").split("/")
            for depth, part in enumerate(parts):
                above = "/".join([folder, *parts[:depth]])
                names.setdefault(above, set()).add(part + ("/" if depth < len(parts) - 1 else ""))
        for above, inside in names.items():
            self.pages[above] = "".join(f'<a href="{name}">{name}</a>\n' for name in sorted(inside))
        return f"http://{self.host}{folder}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: HostileWeb

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        web, path = self.web, self.path.rstrip("/")
        web.asked.append(f"{self.command} {self.path}")
        if path in web.stalled:
            web.is_stalled.set()
            web.released.wait(120)
            self.close_connection = True
        elif path in web.endless:
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if path in web.pages else "image/jpeg")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while self.command == "GET":
                self.wfile.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
                web.n_sent += 0x10000
        elif path in web.pages or web.deep:
            page = web.pages.get(path) or '<a href="more/">more</a>'
            self._send(page.encode(), "text/html")
        elif path in web.files:
            self._send(web.files[path], "image/jpeg", is_half=path in web.half)
        else:
            self.send_error(404)

    def _send(self, body: bytes, kind: str, *, is_half: bool = False) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "GET":
            return
        if not is_half:
            self.wfile.write(body)
            return
        self.wfile.write(body[: len(body) // 2])
        self.wfile.flush()
        self.web.is_stalled.set()
        self.web.released.wait(120)
        self.close_connection = True


@contextmanager
def hostile_web() -> Iterator[HostileWeb]:
    """Run the server until the block is left."""
    web = HostileWeb()

    class Handler(_Handler):
        pass

    Handler.web = web
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    web.host = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
