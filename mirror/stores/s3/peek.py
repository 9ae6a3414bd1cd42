"""A few bytes of an object that is to be copied: enough to see that it is cut off, where its structure tells early."""

from __future__ import annotations

import contextlib
from functools import partial

from mirror.errors import MirrorError, Unavailable
from mirror.http import Http
from mirror.media.look import from_afar
from mirror.stores import Head
from mirror.stores.s3.address import Located
from mirror.stores.s3.control import Control, needed
from mirror.stores.s3.reading import read_block


class Peek:
    """Reads parts of one version of an object: with our credentials, or with ``url`` as anybody can."""

    def __init__(self, control: Control, http: Http, source: Located, head: Head, url: str) -> None:
        self._control = control
        self._http = http
        self._source = source
        self._head = head
        self._url = url

    async def finds_end_missing(self) -> bool:
        """True where the object is certainly cut off; what cannot be read says nothing."""
        try:
            found = await from_afar(self._read if self._url == "" else self._read_as_anybody, self._head.length or 0)
        except MirrorError:
            return False
        return bool(found.missing)

    async def _read(self, start: int, stop: int) -> bytes:
        answer = await self._control.once(
            "GetObject",
            Bucket=self._source.bucket,
            Key=self._source.key,
            Range=f"bytes={start}-{stop - 1}",
            IfMatch=self._head.etag,
        )
        with contextlib.closing(answer["Body"]) as body:
            if needed(answer, "ContentLength", "GetObject") != stop - start:
                raise Unavailable("the store serves no ranges")
            where = f"s3://{self._source.bucket}/{self._source.key}"
            return await self._control.run(partial(read_block, body, where, stop - start))

    async def _read_as_anybody(self, start: int, stop: int) -> bytes:
        headers = {"Range": f"bytes={start}-{stop - 1}", "If-Match": self._head.etag or ""}
        async with self._http.send("GET", self._url, headers) as response:
            if response.status != 206 or response.content_length != stop - start:
                raise Unavailable("the store serves no ranges")
            return await response.read()
