"""Files that vendors send: what they are by their first bytes, a safe name for them, and what a ZIP holds; no I/O."""

from __future__ import annotations

import io
import re
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from email.message import Message
from typing import IO, TYPE_CHECKING, NamedTuple, cast

from airflow_cloudbilling.parse.values import Unreadable, shown

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

HEAD = 4096
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError)  # what reading a member of a damaged ZIP raises
_LONGEST_NAME = 180  # bytes; file systems take 255
_MEMBERS = 1000
_DIRECTORY = 4 * 1024 * 1024  # bytes of a ZIP's list of members
_RATIO = 200  # how far a member may be packed, once it is large
_LARGE = 8 * 1024 * 1024
_END = struct.Struct("<4s4H2LH")
_TAIL = 65_536 + _END.size + 20
_UNSAFE = re.compile(r'[<>:"|?*\ufffd]')


class FileType(NamedTuple):
    """What a file is, by its content, and the suffix of its name."""

    content_type: str
    suffix: str


PDF = FileType("application/pdf", ".pdf")
XLSX = FileType("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", ".xlsx")
ZIP = FileType("application/zip", ".zip")
XML = FileType("application/xml", ".xml")
HTML = FileType("text/html", ".html")
JSON = FileType("application/json", ".json")
CSV = FileType("text/csv", ".csv")
TEXT = FileType("text/plain", ".txt")
OTHER = FileType("application/octet-stream", ".bin")


class Member(NamedTuple):
    """One file in a ZIP.

    :param open: returns it as a stream, from its beginning; both may raise one of :data:`DAMAGED`.
    """

    name: str
    size: int
    open: Callable[[], IO[bytes]]


class _Raw(io.RawIOBase):
    """A reply's body as the standard library wants files; Python 3.10's spooled files lack half of the methods."""

    def __init__(self, body: IO[bytes]) -> None:
        self._body = body

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)
        data = self._body.read(len(view))
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._body.seek(offset, whence)
        return self._body.tell()

    def tell(self) -> int:
        return self._body.tell()


def buffered(body: IO[bytes]) -> io.BufferedReader:
    """Return a body, set to its beginning, as a buffered file; closing that does not close the body."""
    body.seek(0)
    return io.BufferedReader(_Raw(body))


def unpacked(body: IO[bytes]) -> IO[bytes]:
    """Return a copy of a file in a ZIP that may be read in any order; within the packed one, going back is slow."""
    copy = cast("IO[bytes]", tempfile.SpooledTemporaryFile(max_size=_LARGE))  # noqa: SIM115 - the caller closes it
    shutil.copyfileobj(body, copy)
    copy.seek(0)
    return copy


def sniff(body: IO[bytes]) -> FileType:
    """Return what a file is by its content; names and content types of vendors are not to be trusted.

    :param body: is left at its beginning.
    """
    with buffered(body) as file:
        kind = type_of(file.read(HEAD))
    if kind is ZIP and _is_workbook(body):
        kind = XLSX
    body.seek(0)
    return kind


def type_of(head: bytes) -> FileType:
    """Return what a file is by its first kilobytes; a workbook looks like any ZIP here."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return ZIP
    if b"%PDF-" in head[:1024]:  # readers of PDF let something stand before it
        return PDF
    start = head.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")[:200].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return HTML
    if start.startswith(b"<"):
        return XML
    if start.startswith((b"{", b"[")):
        return JSON
    if b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return OTHER
    return CSV if b";" in head else TEXT


def members(body: IO[bytes], largest: int) -> Iterator[Member]:
    """Yield the files in a ZIP, without those that hold only a name.

    :param largest: bytes that all of them may have when unpacked.
    :raises Unreadable: before anything is unpacked, for a bomb, an encrypted or a damaged ZIP.
    """
    with buffered(body) as file:
        _check_directory(file)
        try:
            archive = zipfile.ZipFile(file)
        except (*DAMAGED, ValueError, NotImplementedError, struct.error) as error:
            raise Unreadable(f"the ZIP is damaged ({error})") from None
        found = [info for info in archive.infolist() if not info.filename.endswith("/")]  # a name may be empty
        if len(found) > _MEMBERS:
            raise Unreadable(f"expected a ZIP of at most {_MEMBERS} files, came {len(found)}")
        if sum(info.file_size for info in found) > largest:
            raise Unreadable(f"expected a ZIP that unpacks to at most {largest} bytes, came a larger one")
        for info in found:
            _check_member(info)
        for info in found:
            yield Member(info.filename, info.file_size, lambda info=info: _opened(archive, info))  # type: ignore[misc] # bound to this one


def _opened(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    """Open a member.

    :raises zipfile.BadZipFile: also where the standard library meets a list of members that leads nowhere otherwise.
    """
    try:
        return archive.open(info)
    except (ValueError, NotImplementedError, struct.error) as error:
        raise zipfile.BadZipFile(f"the file {shown(info.filename)} cannot be opened: {error}") from None


def _check_directory(file: IO[bytes]) -> None:
    """Refuse a list of members that is too long to be read; the standard library would read it whole."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _TAIL))
    tail = file.read(_TAIL)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise Unreadable("the ZIP is damaged (it has no list of members)")
    _, _, _, _, count, length, _, _ = _END.unpack_from(tail, at)
    if count > _MEMBERS or length > _DIRECTORY or b"PK\x06\x07" in tail[max(0, at - 20) : at]:
        raise Unreadable(f"expected a ZIP of at most {_MEMBERS} files, came a longer list of members")


def _check_member(info: zipfile.ZipInfo) -> None:
    name = shown(info.filename)
    if info.flag_bits & 1:
        raise Unreadable(f"the file {name} in the ZIP is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Unreadable(f"the file {name} in the ZIP is packed in an uncommon way (method {info.compress_type})")
    if info.file_size > _LARGE and info.file_size > _RATIO * max(info.compress_size, 1):
        raise Unreadable(f"the file {name} in the ZIP unpacks to {info.file_size} bytes, more than {_RATIO} times")


def _is_workbook(body: IO[bytes]) -> bool:
    try:
        with buffered(body) as file:
            _check_directory(file)
            return any(name.startswith("xl/") for name in zipfile.ZipFile(file).namelist())
    except (Unreadable, ValueError, NotImplementedError, struct.error, *DAMAGED):
        return False


def safe_name(name: str | None, fallback: str) -> str:
    """Return a file's name without folders, control characters and what file systems or readers may take amiss.

    :param name: as the vendor gave it; of a path, its last part.
    :param fallback: the name when nothing is left, made safe too.
    """
    for given in (name or "", fallback):
        last = re.split(r"[/\\]", given.replace("\0", ""))[-1]
        printable = "".join(c if c.isprintable() else "_" for c in _UNSAFE.sub("_", last)).strip(" .")
        if any(c.isalnum() for c in printable):
            return _cut(printable)
    return "file"


def _cut(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    suffix = dot + suffix if stem and len(suffix) <= 10 else ""
    room = _LONGEST_NAME - len(suffix.encode())
    return name.removesuffix(suffix).encode()[:room].decode("utf-8", "ignore") + suffix


def disposition_name(header: str | None) -> str | None:
    """Return the file name of a Content-Disposition header, if it has one that can be read."""
    if not header:
        return None
    message = Message()
    message["Content-Disposition"] = re.sub(r"[\r\n]", " ", header)
    try:
        return message.get_filename()
    except (ValueError, LookupError, UnicodeError):
        return None
