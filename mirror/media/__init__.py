"""What is media: here a look at the first bytes, for the error page that an origin sent with status 200.

:mod:`mirror.media.look` goes through a file's structure as its bytes come: a file a format.
"""

from __future__ import annotations

import re

HEAD = 512
"""Bytes that the look needs at most."""

_PAGE = re.compile(
    rb"(?i)\s*(?:<!--.*?-->\s*)?(?:<!doctype\s+html|<html|<head|<body|<\?xml[^>]*\?>\s*<(?:error|html)|<error>)", re.S
)
_TEXTUAL = ("text/html", "application/xhtml+xml", "application/xml", "text/xml", "application/json")


def why_not_media(head: bytes, content_type: str | None) -> str | None:
    """Why a body that starts with ``head`` is no media; None where nothing speaks against it.

    Unknown types pass: only an empty body and HTML, XML or JSON error pages are told apart.
    """
    if not head:
        return "the body is empty"
    if _PAGE.match(head.removeprefix(b"\xef\xbb\xbf")):
        return "the body is an HTML or XML page"
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind in _TEXTUAL and head.lstrip()[:1] in (b"{", b"[", b"<") and b"<svg" not in head:
        return f"the body is a text of type {kind}"
    return None
