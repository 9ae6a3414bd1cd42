"""The bytes of an object in a bucket, ``s3://bucket/key``, read with the credentials and the settings of ``[s3]``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from msgspec.structs import replace

from mirror.errors import ConfigError, Denied, Severity, StoreError, StoreUnavailable
from mirror.events import Observer
from mirror.settings import Settings
from mirror.sources.lines import BLOCK, Damaged
from mirror.stores.s3.control import Control
from mirror.stores.s3.errors import NoSuchKey
from mirror.stores.s3.reading import object_blocks

SCHEME = "s3://"


async def s3_blocks(name: str, settings: Settings, observer: Observer) -> AsyncGenerator[bytes, None]:
    """What an object holds, a block of 64 KiB at a time. It may be read slowly: see :mod:`mirror.stores.s3.reading`.

    Raises:
        ConfigError: (while iterating) it is not there, may not be read, there are no credentials, or the name is wrong.
        StoreUnavailable: the store cannot be reached.
        Damaged: it cannot be read on.
    """
    bucket, key = _located(name)
    control = Control(replace(settings, s3=replace(settings.s3, bucket=bucket, prefix="")), observer)
    begun = False
    try:
        await control.connect()
        async with aclosing(object_blocks(control, key, BLOCK, settings.transfer.attempts)) as blocks:
            async for block in blocks:
                begun = True
                yield block
    except NoSuchKey:
        raise ConfigError(f"{name}: there is no such object") from None
    except StoreError as error:
        if begun:
            raise Damaged(str(error)) from None
        if isinstance(error, Denied):
            raise ConfigError(f"{name}: cannot be read: {_without_policy(error)}") from None
        raise StoreUnavailable(f"{name}: cannot be read: {error}", severity=Severity.FATAL) from None
    finally:
        control.close()


async def check_object(name: str, settings: Settings, observer: Observer) -> None:
    """Begin to read an object, which takes the very rights that reading it does.

    Raises:
        ConfigError, StoreUnavailable: as above.
    """
    async with aclosing(s3_blocks(name, settings, observer)) as blocks:
        await anext(blocks, None)


def _located(name: str) -> tuple[str, str]:
    bucket, _, key = name.removeprefix(SCHEME).partition("/")
    if not bucket or not key:
        raise ConfigError(f"{name}: expected s3://bucket/key, one object")
    return bucket, key


def _without_policy(error: Denied) -> str:
    """What is denied. The policy in the message is that of an archive: reading a list of ids takes less."""
    return str(error).partition(": attach this policy")[0]
