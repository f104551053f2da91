"""Web servers with bounds: no answer is longer than it may be, and none is waited for for ever.

fsspec reads an answer to its end, however long it is, and looks for links in a page with a pattern whose time grows
with the cube of a tag's length. Both are mended in the client that it is given.
"""

import re
from functools import cache
from typing import Any

#: Bytes of an answer that is read as a whole: a little more than the largest image.
MOST_BYTES = 513 << 20

#: Bytes of a page that lists files: half a million of them.
MOST_PAGE_BYTES = 64 << 20

#: Seconds to wait for a connection, for the next bytes of an answer, and for all of it.
CONNECT_S, IDLE_S, WHOLE_S = 15.0, 60.0, 1800.0

#: What fsspec finds files in: the tags of links, and addresses anywhere. Both end at the next bracket, so that the time
#: to find them grows with the length of the page alone.
_LINK = re.compile(r"<[aA]\s[^<>]{1,8192}>|https?://[-a-zA-Z0-9@:%_+.~#?&/=]+")
_WEB = re.compile(r"(?:^|::)(https?)://")


def web_options(address: str) -> dict[str, dict[str, Any]]:
    """Return what to tell fsspec of the web servers in an address, by protocol."""
    return {protocol: {"get_client": _bounded_client} for protocol in _WEB.findall(address)}


async def _bounded_client(**settings: Any) -> Any:
    """Return a client for fsspec; what users have set in fsspec's own configuration counts more."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=WHOLE_S, sock_connect=CONNECT_S, sock_read=IDLE_S)
    return aiohttp.ClientSession(**{"timeout": timeout, "response_class": _bounded_response(), **settings})


@cache
def _bounded_response() -> type:
    import aiohttp

    class BoundedResponse(aiohttp.ClientResponse):
        """An answer of which no more is read than was asked for."""

        is_page = False

        async def read(self) -> bytes:
            """Return the body, or its beginning if it is longer than the range that was asked for.

            Raises:
                OSError: it is too long, or the server has sent another range.
            """
            if self._body is None:
                first, n_wanted = _range(self.request_info.headers.get("Range", ""))
                if first and self.status == 200:
                    self.close()
                    raise OSError("the server does not send parts of files")
                most = MOST_PAGE_BYTES if self.is_page else MOST_BYTES
                body = await self._start_of_body(min(most, n_wanted or most) + 1)
                if len(body) > most:
                    raise OSError(f"the server's answer is longer than {most >> 20} MiB")
                self._body = body[:n_wanted]
            return self._body

        async def text(self, *arguments: Any, **options: Any) -> str:
            """Return the links in a page, a line each, for which alone fsspec reads pages."""
            self.is_page = True
            page = await super().text(*arguments, **options)
            return "\n".join(" ".join(link.split()) for link in _LINK.findall(page))

        async def _start_of_body(self, n_bytes: int) -> bytes:
            pieces, n_read = [], 0
            try:
                async for piece in self.content.iter_any():
                    pieces.append(piece)
                    n_read += len(piece)
                    if n_read >= n_bytes:
                        self.close()
                        break
            except BaseException:
                self.close()
                raise
            return b"".join(pieces)[:n_bytes]

    return BoundedResponse


def _range(header: str) -> tuple[int, int | None]:
    """Return the first byte that a Range header asks for, and how many; None for all that there are."""
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", header)
    if not found:
        return 0, None
    first = int(found[1])
    return first, int(found[2]) + 1 - first if found[2] else None
