"""One object from its front to its end, as a stream that may be read slowly."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import botocore.exceptions

from mirror.errors import Severity, StoreUnavailable
from mirror.stores.s3.control import Control, needed
from mirror.stores.s3.errors import NoSuchKey, PreconditionFailed, Unreachable


async def object_blocks(control: Control, key: str, size: int, attempts: int) -> AsyncGenerator[bytes, None]:
    """The bytes of an object, at most ``size`` at a time, each read only when it is asked for.

    A connection that breaks, or that the store closes because nobody read from it, is taken up where it broke.

    Raises:
        NoSuchKey: there is no such object.
        StoreError: it cannot be read, or was changed while it was.
    """
    at, etag, failures = 0, "", 0
    where = f"s3://{control.bucket}/{key}"
    while True:
        try:
            answer = await control.call(
                "GetObject", Key=key, **({"Range": f"bytes={at}-", "IfMatch": etag} if at else {})
            )
        except (NoSuchKey, PreconditionFailed):
            if not at:
                raise
            raise StoreUnavailable(f"{where}: it was changed while it was read", severity=Severity.ITEM) from None
        if at and not str(answer.get("ContentRange", "")).startswith(f"bytes {at}-"):
            raise StoreUnavailable(f"{where}: the store serves no ranges", severity=Severity.ITEM)
        begun = at
        etag, end = needed(answer, "ETag", "GetObject"), at + int(needed(answer, "ContentLength", "GetObject"))
        with contextlib.closing(answer["Body"]) as body, contextlib.suppress(Unreachable):
            while block := await control.run(partial(read_block, body, where, size)):
                at += len(block)
                yield block
        if at >= end:
            return
        failures = 0 if at > begun else failures + 1
        if failures >= attempts:
            raise StoreUnavailable(f"{where}: the connection breaks again and again", severity=Severity.ITEM)
        await asyncio.sleep(min(0.1 * 2**failures, 10))


def read_block(body: Any, where: str, size: int) -> bytes:
    """The next bytes of a body, ``size`` at most. Blocks."""
    try:
        return bytes(body.read(size))
    except (botocore.exceptions.BotoCoreError, OSError) as error:
        raise Unreachable(f"{where}: the body broke off ({type(error).__name__})") from None
