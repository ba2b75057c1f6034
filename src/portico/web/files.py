"""`door.files`: the files of one folder over HTTP, and nothing beside them."""

import errno
import mimetypes
import os
import stat
import time
from urllib.parse import unquote_to_bytes

from portico.errors import ConfigurationError
from portico.protocols.http11 import http_date
from portico.web.conditions import NAMES, failed_condition, range_applies
from portico.web.file_body import PIECE, FileBody
from portico.web.file_ranges import Range, content_range, multipart, parse_ranges, total
from portico.web.request import Request
from portico.web.response import Response

SMALL = PIECE
"""Bytes up to which a file is sent from memory."""

KEPT_FILES = 256
KEPT_BYTES = 4 << 20
"""How much of small files is kept in memory: so many, and bytes of them together."""

SETTLED = 1.0
"""Seconds since the last change after which a file is kept: a second change within one tick of the file system's clock
(4 ms) cannot be seen."""

TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".ico": "image/vnd.microsoft.icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}
"""Types that this table must not leave to the version of Python: RFC 9239 (JavaScript), RFC 8081 (fonts), IANA."""

PACKED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}

_known_types = mimetypes.MimeTypes()  # the built-in table: that of the system differs from one to the next
_OPEN = sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_BINARY"))
_SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_FORBIDDEN = {"/", "\0", os.sep, os.altsep or os.sep}

Mark = tuple[int, int, int, int, int]
"""What tells one content of a file from another."""


class Files:
    """Answers GET and HEAD with the files of a folder.

    Hidden files (`.git`, `.env`; but not `.well-known`), what symbolic links have outside of the folder, and what is no
    regular file do not exist for it. Folders are not listed."""

    def __init__(
        self,
        prefix: str,
        folder: str | os.PathLike[str],
        *,
        index: str | None = "index.html",
        cache: int | str | None = "no-cache",
    ) -> None:
        """
        :param prefix: the path that stands for the folder, such as `/static`.
        :param index: the file that is sent for a folder; None: folders are answered with 404.
        :param cache: what Cache-Control says: seconds that answers may be used without asking again, or the value
            itself; None: nothing. Default: `no-cache`, which is to ask each time whether it has changed (304 if not).
        :raises ConfigurationError: no such folder, or a setting that cannot work
        """
        self._folder = os.path.abspath(folder)
        if not os.path.isdir(self._folder):
            raise ConfigurationError(f"files: {os.fspath(folder)!r} is no folder; give the path of one that exists")
        if index is not None and not _is_name(index):
            raise ConfigurationError(f"files: index is the name of a file in each folder, not {index!r}")
        if isinstance(cache, int) and (isinstance(cache, bool) or cache < 0):
            raise ConfigurationError(f"files: cache is seconds, 0 or more, or a value of Cache-Control, not {cache!r}")
        self._depth = len(prefix.rstrip("/").split("/"))
        self._index = index
        self._cache_control = f"max-age={cache}" if isinstance(cache, int) else cache
        self._kept: dict[str, _Found] = {}
        self._kept_bytes = 0

    async def __call__(self, request: Request) -> Response:
        """Answer a GET or HEAD."""
        kept = self._kept.get(request.raw_path)
        if kept is not None:
            try:
                unchanged = _mark(os.stat(kept.path)) == kept.mark
            except OSError:
                unchanged = False
            if unchanged:
                return _respond(request, kept)
            self._drop(request.raw_path)
        try:
            return self._find(request)
        except OSError as error:
            if error.errno in _SHORTAGE:
                return Response.error(503, headers=[("Retry-After", "1")])
            return Response.error(404)  # not there, not readable, too long a name, links in a circle
        except ValueError:  # a name that this system cannot have
            return Response.error(404)

    # finding

    def _find(self, request: Request) -> Response:
        """Answer with the file that the path names.

        :raises OSError: there is none"""
        names = request.raw_path.split("/")[self._depth :]
        for_folder = names[-1:] == [""]
        decoded = [os.fsdecode(unquote_to_bytes(name)) for name in (names[:-1] if for_folder else names)]
        if not all(_is_name(name) and (name[0] != "." or name == ".well-known") for name in decoded):
            return Response.error(404)
        path = os.path.join(self._folder, *decoded)
        info = os.stat(self._inside(path))
        if stat.S_ISDIR(info.st_mode):
            if self._index is None:
                return Response.error(404)
            if not for_folder:
                return _to_folder(request)
            path = os.path.join(path, self._index)
        elif for_folder:
            return Response.error(404)
        return self._answer(request, path)

    def _inside(self, path: str) -> str:
        """Return `path` without symbolic links, which is in the folder.

        :raises OSError: it does not exist, or not there"""
        real, root = os.path.realpath(path, strict=True), os.path.realpath(self._folder, strict=True)
        if real != root and not real.startswith(root.rstrip(os.sep) + os.sep):
            raise FileNotFoundError(errno.ENOENT, "outside of the folder", path)
        return real

    def _open(self, path: str) -> int:
        """Open a regular file that is in the folder, whatever happens to links meanwhile.

        :raises OSError: there is none"""
        real = self._inside(path)
        if not stat.S_ISREG(os.stat(real).st_mode):  # opening a device or a FIFO does something to it
            raise FileNotFoundError(errno.ENOENT, "not a regular file", path)
        fd = os.open(real, os.O_RDONLY | _OPEN)
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode) or not os.path.samestat(info, os.stat(self._inside(real))):
                raise FileNotFoundError(errno.ENOENT, "it was replaced meanwhile", path)
        except BaseException:
            os.close(fd)
            raise
        return fd

    # answering

    def _answer(self, request: Request, path: str) -> Response:
        """Answer with the file at `path`, its index if that is a folder.

        :raises OSError: it is not there, or cannot be read"""
        fd, response = self._open(path), None
        try:
            info = os.fstat(fd)
            if info.st_size > SMALL:
                response = _respond(request, _Found(path, info, self._cache_control), fd)
                return response
            found = _Found(path, info, self._cache_control, _read_all(fd, info.st_size))
            if _mark(os.fstat(fd)) == found.mark and time.time() - max(info.st_mtime, info.st_ctime) > SETTLED:
                self._keep(request.raw_path, found)
            return _respond(request, found)
        finally:
            if response is None or not isinstance(response.body, FileBody):
                os.close(fd)

    def _keep(self, raw_path: str, found: "_Found") -> None:
        self._kept[raw_path] = found
        self._kept_bytes += found.size
        while self._kept_bytes > KEPT_BYTES or len(self._kept) > KEPT_FILES:
            self._drop(next(iter(self._kept)))

    def _drop(self, raw_path: str) -> None:
        self._kept_bytes -= self._kept.pop(raw_path).size


class _Found:
    """A file as it was when it was looked at: what an answer says about it, and, of a small one, its content."""

    __slots__ = ("body", "content_type", "etag", "headers", "mark", "modified", "path", "size", "validators", "whole")

    def __init__(self, path: str, info: os.stat_result, cache_control: str | None, body: bytes | None = None) -> None:
        self.path, self.mark, self.body = path, _mark(info), body
        self.size = info.st_size if body is None else len(body)
        self.etag = f'"{info.st_mtime_ns:x}-{info.st_size:x}"'
        self.modified = int(info.st_mtime) if 0 <= info.st_mtime <= time.time() else None  # never later than Date
        self.content_type = content_type(path)
        self.validators = [("ETag", self.etag)]
        if self.modified is not None:
            self.validators.append(("Last-Modified", http_date(self.modified)))
        if cache_control is not None:
            self.validators.append(("Cache-Control", cache_control))
        self.headers = [*self.validators, ("Accept-Ranges", "bytes"), ("X-Content-Type-Options", "nosniff")]
        self.whole = [("Content-Type", self.content_type), *self.headers]

    def part(self, pieces: list[bytes | Range], fd: int, status: int, headers: list[tuple[str, str]]) -> Response:
        """Answer with `pieces` of it, read from `fd` where they are not in memory."""
        if self.body is not None:
            parts = (each if isinstance(each, bytes) else self.body[each[0] : each[1]] for each in pieces)
            return Response(b"".join(parts), status=status, headers=headers + self.headers)
        length = ("Content-Length", str(total(pieces)))
        return Response(FileBody(fd, self.path, pieces), status=status, headers=[*headers, *self.headers, length])


def _respond(request: Request, found: _Found, fd: int = -1) -> Response:
    """Answer with what the request wants of a file; `fd` belongs to the body then, if that is a FileBody."""
    headers = request.headers
    for name in NAMES:
        if name in headers:
            status = failed_condition(headers, found.etag, found.modified)
            if status == 304:
                return Response(status=304, headers=found.validators)
            if status is not None:
                return Response.error(status, "the file has changed")
            wanted = headers.get("range")
            if wanted is not None and request.method == "GET" and range_applies(headers, found.etag, found.modified):
                ranges = parse_ranges(wanted, found.size)
                if ranges is not None:
                    return _some(found, ranges, fd)
            break
    if found.body is not None:
        return Response(found.body, headers=found.whole)
    return found.part([(0, found.size)], fd, 200, [found.whole[0]])


def _some(found: _Found, ranges: list[Range], fd: int) -> Response:
    """Answer with some ranges of a file: 206, or 416 where there are none."""
    if not ranges:
        return Response.error(416, headers=[("Content-Range", content_range(None, found.size))])
    if len(ranges) == 1:
        told = [found.whole[0], ("Content-Range", content_range(ranges[0], found.size))]
        return found.part([*ranges], fd, 206, told)
    kind, pieces = multipart(ranges, found.size, found.content_type)
    return found.part(pieces, fd, 206, [("Content-Type", kind)])


def content_type(path: str) -> str:
    """Return the media type of a file by the end of its name, with the charset where it is text (UTF-8)."""
    found = TYPES.get(os.path.splitext(path)[1].lower())
    if found is None:
        found, packed = _known_types.guess_type(os.path.basename(path))
        if packed is not None:  # the file is sent as it lies there
            found = PACKED.get(packed)
    if found is None:
        return "application/octet-stream"
    return found + "; charset=utf-8" if found.startswith("text/") else found


def _to_folder(request: Request) -> Response:
    """Send the client to the path with a slash behind it, relative to where it is: whatever prefix a proxy took away
    stays, and no path can name another host."""
    query = f"?{request.query}" if request.query else ""
    name = request.raw_path.rpartition("/")[2]
    return Response(status=301, headers=[("Location", f"./{name}/{query}")])


def _is_name(name: str) -> bool:
    """Whether that can be the name of one file in a folder."""
    return name not in ("", ".", "..") and _FORBIDDEN.isdisjoint(name)


def _mark(info: os.stat_result) -> Mark:
    return info.st_ino, info.st_mtime_ns, info.st_size, info.st_ctime_ns, info.st_dev


def _read_all(fd: int, size: int) -> bytes:
    """Read `size` bytes, fewer where there are fewer."""
    data = b""
    while more := os.read(fd, size - len(data)):
        data += more
    return data
