"""What passes for media."""

from __future__ import annotations

import pytest

from mirror.media import HEAD, why_not_media
from tests import media

MEDIA = {
    "png": media.png(),
    "jpeg": media.jpeg(),
    "webp": media.webp(),
    "mp4": media.mp4(2_000),
    "unknown": media.blob(100),
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "svg-with-xml": b"<?xml version='1.0'?>\n<svg/>",
    "playlist": b"#EXTM3U\n",
}


@pytest.mark.parametrize(
    "content_type", [None, "", "application/octet-stream", "video/mp4", "text/html; charset=utf-8"]
)
@pytest.mark.parametrize("body", MEDIA.values(), ids=MEDIA)
def test_media_passes_whatever_it_is_called(body: bytes, content_type: str | None) -> None:
    assert why_not_media(body[:HEAD], content_type) is None


@pytest.mark.parametrize(
    ("head", "content_type", "why"),
    [
        (b"", "image/png", "the body is empty"),
        (b"<!DOCTYPE html><html>", "image/png", "page"),
        (b"\r\n \t<HTML lang=en>", None, "page"),
        (b"\xef\xbb\xbf<html>", None, "page"),
        (b"<!-- cached -->\n<!doctype  html>", None, "page"),
        (b"<head><title>502", None, "page"),
        (b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied', "application/octet-stream", "page"),
        (b"<Error><Code>NoSuchKey", None, "page"),
        (b'{"error": "expired"}', "application/json", "a text of type application/json"),
        (b" [1]", "Application/JSON; charset=utf-8", "a text of type application/json"),
        (b"<p>gone</p>", "text/html", "a text of type text/html"),
    ],
)
def test_pages_are_no_media(head: bytes, content_type: str | None, why: str) -> None:
    assert why in (why_not_media(head, content_type) or "")
