"""Fetches the files of a dataset: from mirrors, resumed where it broke off, verified by MD5.

Since the MD5 says what the bytes must be, a beginning that came from one mirror is continued from
any other. Ranges and validators: RFC 9110, sections 13.1.5 (If-Range) and 14 (Range).
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, InvalidURL
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tqdm import tqdm

from data.download.checksums import check_md5, md5_of
from data.download.partial_file import Part, locked_partial_file
from data.types import DataError

TIMEOUT_S = 20.0  # that a server may stay silent
ATTEMPTS = 3  # requests to one mirror for one file; each goes on where the last one broke off
PAUSE_S = 1.0  # before the second attempt; before the third it is twice as long
MAX_BYTES = 10**10  # no file is larger; ends a server that sends for ever


class Refused(Exception):  # noqa: N818 - a decision
    """This mirror's answer is of no use, however often it is asked."""


def fetch(folder: Path, md5: Mapping[str, str], mirrors: Sequence[str], otherwise: str) -> None:
    """Downloads files into `folder`, one after the other: each complete and right, or not there.

    Args:
        folder: where they are put; made if need be.
        md5: of each file, by its name.
        mirrors: addresses of folders that have the files, tried in order.
        otherwise: what else the user can do, the end of every message.

    Raises:
        DataError: no mirror has given a file, or the disk does not take it. Files that are whole
            stay, and so does the beginning of one, from which the next call goes on.
    """
    mirrors = list(mirrors)
    for name, expected in md5.items():
        target = folder / name
        try:
            with locked_partial_file(target) as part:
                if target.exists():  # another run has fetched it meanwhile
                    check_md5(str(target), md5_of(target), expected)
                else:
                    mirrors = _from_mirrors(part, mirrors, expected.lower(), otherwise)
                    part.finish()
        except OSError as error:
            raise DataError(f"{target} cannot be written: {error}.\n{otherwise}") from error


def _from_mirrors(part: Part, mirrors: list[str], md5: str, otherwise: str) -> list[str]:
    """Completes the part. Returns the mirrors, the one that was good first."""
    if part.size and part.md5() == md5:  # only the renaming was missing
        return mirrors
    reasons = [] if mirrors else ["  data.mirrors names no address"]
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{part.target.name}"
        try:
            _from_mirror(part, url, md5)
        except DataError:  # it is about the disk here, and no mirror can help
            raise
        except (OSError, HTTPException, ValueError, Refused) as error:
            reasons.append(f"  {url}: {_reason(error)}")
        else:
            return [mirror, *(other for other in mirrors if other != mirror)]
    if part.size:
        reasons.append(f"{part.size:,} bytes stay in {part.path}; the next run goes on from there.")
    message = [f"Could not download {part.target.name}:", *reasons, otherwise]
    raise DataError("\n".join(message))


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"HTTP {error.code} {error.reason}"
    return str(error.reason if isinstance(error, URLError) else error) or type(error).__name__


@dataclass
class _Source:
    """An address, and the validator of what it sent last."""

    url: str
    etag: str = ""


def _from_mirror(part: Part, url: str, md5: str) -> None:
    """Completes the part from one address.

    Raises:
        Refused, URLError, ValueError: this mirror does not have the file.
        OSError, HTTPException: it went silent or broke off, in each attempt.
    """
    source = _Source(url)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            was_afresh = _transfer(part, source)
        except (OSError, HTTPException) as error:
            if attempt == ATTEMPTS or not _may_pass(error):
                raise
            time.sleep(PAUSE_S * attempt)
            continue
        if (found := part.md5()) == md5:
            return
        size = part.size
        part.clear()
        if was_afresh or attempt == ATTEMPTS:
            raise Refused(f"{size:,} bytes arrived, with the MD5 {found} instead of {md5}")


def _may_pass(error: Exception) -> bool:
    """True to ask the same server again: not if there is no way to it (URLError), nor if it says
    that there is no such thing. After 416 the part is empty and all of the file is asked for."""
    if isinstance(error, HTTPError):
        return error.code >= 500 or error.code in (416, 429)
    return not isinstance(error, (URLError, InvalidURL))


def _transfer(part: Part, source: _Source) -> bool:
    """Appends what the part lacks. Returns whether that was all of it, from the first byte on."""
    with _ask(part, source) as reply:
        start, total = _extent(reply)
        if total is not None and total > MAX_BYTES:
            raise Refused(f"it announces {total:,} bytes; more than {MAX_BYTES:,} are not taken")
        if start not in (0, part.size):
            part.clear()
            raise OSError(f"it sent bytes from {start:,} on, which nobody asked for")
        if start == 0:  # the file has changed, or the server knows no ranges
            part.clear()
        source.etag = reply.headers.get("ETag", "")
        part.check_room((total or 0) - start)
        _copy(reply, part, total)
    if total is not None and part.size < total:
        raise OSError(f"it broke off after {part.size:,} of {total:,} bytes")
    return start == 0


def _ask(part: Part, source: _Source) -> Any:
    """The server's answer: what follows on the part, or all of the file if it has changed."""
    request = Request(source.url, headers={"User-Agent": "trainer"})
    if part.size:
        request.add_header("Range", f"bytes={part.size}-")
        if source.etag.startswith('"'):  # a weak one, W/"...", does not vouch for the bytes
            request.add_header("If-Range", source.etag)
    try:
        return build_opener(_Redirects).open(request, timeout=TIMEOUT_S)
    except HTTPError as error:
        error.close()  # it is the open answer as well
        if error.code == 416:  # nothing follows: the part is longer than the file
            part.clear()
        raise


def _extent(reply: Any) -> tuple[int, int | None]:
    """The position of the first byte that is sent, and the size of the whole file if it is told."""
    if reply.headers.get_content_type() == "text/html":
        raise Refused("it sent a web page instead of the file")
    if reply.status in (200, None):  # None: file://
        length = reply.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", reply.headers.get("Content-Range", ""))
    if reply.status != 206 or span is None:
        raise Refused(f"it answered with HTTP {reply.status} {reply.reason}")
    return int(span[1]), None if span[2] == "*" else int(span[2])


def _copy(reply: Any, part: Part, total: int | None) -> None:
    # disable=None: a bar on a terminal, nothing elsewhere.
    with tqdm(
        desc=part.target.name,
        initial=part.size,
        total=total,
        unit="B",
        unit_scale=True,
        disable=None,
        file=sys.__stderr__,
    ) as bar:
        while chunk := reply.read1(1 << 18):  # what is there: nothing is lost if no more comes
            part.append(chunk)
            bar.update(len(chunk))
            if part.size > MAX_BYTES:
                part.clear()
                raise Refused(f"it sent more than {MAX_BYTES:,} bytes")


class _Redirects(HTTPRedirectHandler):
    """Follows no redirect that gives up encryption."""

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if req.type == "https" and not newurl.lower().startswith("https:"):
            fp.close()
            raise URLError(f"it redirects to {newurl}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
