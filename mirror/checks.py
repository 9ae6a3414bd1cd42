"""One file or manifest compared with what should be there: on disk by hashing, in the bucket by asking."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from msgspec import UNSET, Struct

from mirror import names
from mirror.digests import Digests
from mirror.errors import MirrorError, Severity
from mirror.manifests.document import decode_if_sound, says_more
from mirror.models import ManifestFile
from mirror.places import Places
from mirror.stores import MANIFEST, Document
from mirror.stores.disk import INTERNAL
from mirror.stores.files import let_go, translated
from mirror.stores.local import LocalStore
from mirror.stores.workers import Workers

if TYPE_CHECKING:
    from mirror.stores.s3.objects import Found
    from mirror.stores.s3.store import S3Store

T = TypeVar("T")

_BLOCK = 1 << 20
_HOP = 64 << 20
"""Bytes that are hashed in one hop at most, so that a stop never waits long."""

_NO_PROMPTS = (INTERNAL, names.GALLERY)
_ENTRIES = 1000
"""Names of a folder that are looked at together."""


class Checked(Struct, frozen=True, kw_only=True):
    """What was found of one file or manifest of the prompt ``prompt_id``.

    ``flaw`` is None where all is well, else ``missing``, ``damaged``, ``unreadable``, ``undecodable`` or
    ``unexpected``; the last one says that something stands there that nobody names, and is no loss. ``where`` is the
    path below the root, or the object's URL; ``bytes`` how long it is, ``detail`` more about the flaw, for people;
    ``file`` what should be there, None for a manifest. ``repaired`` is None where
    nothing was tried. With ``again`` only the manifest does not name it: its bytes are there. ``decoded`` is True for
    what was decoded whole, False for what is of no format that can be, None where that was not tried. With ``intact``
    its bytes are the right ones, whatever keeps it from being decoded.

    Example::

        for checked in mirror.verify(settings):
            print(checked.where, checked.bytes, "bytes", checked.flaw or "sound")  # → sound
    """

    prompt_id: str
    where: str
    bytes: int = 0
    flaw: str | None = None
    detail: str = ""
    file: ManifestFile | None = None
    repaired: bool | None = None
    again: bool = False
    decoded: bool | None = None
    intact: bool = False

    @property
    def is_wrong(self) -> bool:
        """Whether something is lost, and was not brought back."""
        return self.flaw not in (None, "unexpected") and not self.repaired


class Expected(Struct, frozen=True, kw_only=True):
    """A file that should be there. ``unnamed``: the catalog counts it as lost, and the manifest names it no more."""

    prompt_id: str
    folder: str
    file: ManifestFile
    unnamed: bool = False


class Checks(Protocol):
    """What a place can be asked. ``batch`` is how many bytes of small files are looked at together."""

    batch: int

    async def read_manifests(self, folders: Sequence[str]) -> list[Document | None]: ...
    async def look(self, batch: Sequence[Expected]) -> list[Checked]: ...
    async def look_at_manifest(self, prompt_id: str, folder: str, content: bytes) -> Checked: ...
    async def names(self, folder: str) -> list[str]:
        """What stands in a prompt's folder; of a bucket nothing, its :meth:`entries` tell that."""
        ...

    def entries(self) -> AsyncGenerator[list[tuple[str, str, str]], None]:
        """All of the place in pages: a folder, where it or an object in it stands, and that object's key."""
        ...


def judged(expected: Expected, where: str, size: int, wrong: str) -> Checked:
    """The verdict on a file that could be read."""
    flaw, again = ("damaged" if wrong else None), False
    if not wrong and expected.unnamed:
        flaw, again, wrong = "missing", True, "it is there again, but the manifest does not name it"
    return Checked(
        prompt_id=expected.prompt_id,
        where=where,
        bytes=size,
        flaw=flaw,
        detail=wrong,
        file=expected.file,
        again=again,
    )


def _broken(expected: Expected, where: str, flaw: str, detail: str = "") -> Checked:
    return Checked(prompt_id=expected.prompt_id, where=where, flaw=flaw, detail=detail, file=expected.file)


# On disk -------------------------------------------------------------------------------------------


class DiskChecks:
    """Hashes files in threads of its own, one for each core."""

    batch = 4 << 20

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self._workers = Workers(max(4, os.cpu_count() or 1), "mirror-verify")

    def close(self) -> None:
        self._workers.close()

    async def _run(self, call: Callable[[], T]) -> T:
        return await self._workers.start(call)

    async def read_manifests(self, folders: Sequence[str]) -> list[Document | None]:
        return await self._store.read_manifests(folders)

    async def look(self, batch: Sequence[Expected]) -> list[Checked]:
        """Small files in one hop to a thread; a large one in several."""
        if len(batch) > 1 or batch[0].file.bytes <= _HOP:
            return await self._run(lambda: [self._look(expected) for expected in batch])
        reading = await self._run(partial(self._open, batch[0]))
        if isinstance(reading, Checked):
            return [reading]
        try:
            while await self._run(reading.go_on):
                pass
            return [reading.judge()]
        finally:
            reading.close()

    def _look(self, expected: Expected) -> Checked:
        reading = self._open(expected)
        if isinstance(reading, Checked):
            return reading
        try:
            while reading.go_on():
                pass
            return reading.judge()
        finally:
            reading.close()

    def _open(self, expected: Expected) -> _Reading | Checked:
        """The file opened; where that says all, the verdict."""
        where = f"{expected.folder}/{expected.file.path}"
        try:
            fd = self._store.open_now(expected.folder, expected.file.path)
        except MirrorError as error:
            if error.severity is Severity.FATAL:
                raise
            if isinstance(error.__cause__, FileNotFoundError):
                return _broken(expected, where, "missing")
            return _broken(expected, where, "unreadable", str(error))
        try:
            return _Reading(fd, expected, where)
        except OSError as error:
            let_go(fd)
            return _broken(expected, where, "unreadable", f"cannot be read: {error.strerror}")

    async def look_at_manifest(self, prompt_id: str, folder: str, content: bytes) -> Checked:
        return Checked(prompt_id=prompt_id, where=f"{folder}/{MANIFEST}", bytes=len(content))

    async def names(self, folder: str) -> list[str]:
        def listed() -> list[str]:
            try:
                with self._store.disk.folder(folder) as fd:
                    return sorted(os.listdir(fd))  # noqa: PTH208
            except (OSError, MirrorError):
                return []  # its manifest and files say what is wrong

        return await self._run(listed)

    async def entries(self) -> AsyncGenerator[list[tuple[str, str, str]], None]:
        """The folders under the root. Files there are nobody's prompt: what was exported, say."""
        with translated(f"{self._store.root}"), os.scandir(self._store.root) as found:
            while page := await self._run(lambda: [entry for entry, _ in zip(found, range(_ENTRIES), strict=False)]):
                yield [
                    (entry.name, f"{entry.name}/", "")
                    for entry in page
                    if entry.name not in _NO_PROMPTS and entry.is_dir(follow_symlinks=False)
                ]


class _Reading:
    """A file that is being hashed. Blocks."""

    def __init__(self, fd: int, expected: Expected, where: str) -> None:
        self._fd = fd
        self._expected = expected
        self._where = where
        self._digest = hashlib.sha256()
        self._at = 0
        self._wrong = ""
        self._error: OSError | None = None
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            self._wrong = "it is no file"
        elif status.st_size != expected.file.bytes:
            self._wrong = f"{status.st_size} bytes, not {expected.file.bytes}"
        self._size = status.st_size

    def go_on(self) -> bool:
        """Hash on, up to a hop's worth; False at the end, or where that would tell nothing more."""
        if self._wrong:
            return False
        stop, buffer = self._at + _HOP, bytearray(min(_BLOCK, max(self._size, 1)))
        view = memoryview(buffer)
        try:
            while self._at < stop:
                count = os.readv(self._fd, [buffer])
                if not count:
                    return False
                self._digest.update(view[:count])
                self._at += count
        except OSError as error:
            self._error = error
            return False
        return True

    def judge(self) -> Checked:
        file = self._expected.file
        if self._error is not None:
            return _broken(self._expected, self._where, "unreadable", f"cannot be read: {self._error.strerror}")
        if not self._wrong and self._at != file.bytes:
            self._wrong = f"{self._at} bytes, not {file.bytes}"
        if not self._wrong and file.sha256 is not None and self._digest.hexdigest() != file.sha256:
            self._wrong = f"its SHA-256 is {self._digest.hexdigest()}, not {file.sha256}"
        return judged(self._expected, self._where, self._at, self._wrong)

    def close(self) -> None:
        let_go(self._fd)


# In the bucket -------------------------------------------------------------------------------------


class BucketChecks:
    """Asks the store for each object; ``deep`` reads it back, too."""

    batch = 0

    def __init__(self, places: Places, bucket: S3Store, *, deep: bool) -> None:
        self._places = places
        self._bucket = bucket
        self._deep = deep

    async def read_manifests(self, folders: Sequence[str]) -> list[Document | None]:
        return await self._places.read_manifests(folders)

    async def look(self, batch: Sequence[Expected]) -> list[Checked]:
        return [await self._look(expected) for expected in batch]

    async def _look(self, expected: Expected) -> Checked:
        bucket, file = self._bucket, expected.file
        if file.s3 is None or not bucket.owns(file.s3):
            where = bucket.objects.where(bucket.objects.key(expected.folder, file.path))
            return _broken(expected, where, "missing", "the manifest names no object")
        where = f"s3://{file.s3.bucket}/{file.s3.key}"
        try:
            found = await bucket.objects.find(file.s3.key)
            if found is None:
                return _broken(expected, where, "missing")
            wrong = await self._compare(file, found)
            if self._deep and not wrong:
                wrong = _difference(await bucket.objects.read_back(file.s3.key, found, Digests()), file)
        except MirrorError as error:
            if error.severity is Severity.FATAL:
                raise
            return _broken(expected, where, "unreadable", str(error))
        return judged(expected, where, found.size if wrong or not self._deep else file.bytes, wrong)

    async def _compare(self, file: ManifestFile, found: Found) -> str:
        """What is wrong with an object; empty where nothing is."""
        bucket = self._bucket
        assert file.s3 is not None
        if found.size != file.bytes:
            return f"{found.size} bytes, not {file.bytes}"
        expected = {"checksum_sha256": file.s3.checksum_sha256, "checksum_crc64nvme": file.s3.checksum_crc64nvme}
        known = {name: value for name, value in expected.items() if value not in (None, UNSET)}
        if known and not any(getattr(found, name) for name in known):
            found = await bucket.objects.with_attributes(file.s3.key, found)
        for name, value in known.items():
            told = getattr(found, name)
            if told is not None:
                return "" if told == value else f"its {name} is {told}, not {value}"
        if bucket.objects.is_of(found, file.sha256):
            return ""
        if found.etag.strip('"') != file.s3.etag.strip('"'):
            return f"its ETag is {found.etag}, not {file.s3.etag}: another object was put there"
        return ""

    async def look_at_manifest(self, prompt_id: str, folder: str, content: bytes) -> Checked:
        where = self._bucket.objects.where(self._bucket.objects.key(folder, MANIFEST))
        [document] = await self._bucket.read_manifests([folder])
        if document is None:
            return Checked(prompt_id=prompt_id, where=where, flaw="missing")
        there, here = decode_if_sound(document.content), decode_if_sound(content)
        same = there is not None and here is not None and says_more(there, here)
        detail = "" if same else "it does not say what the one on disk says"
        return Checked(
            prompt_id=prompt_id, where=where, bytes=len(content), flaw=None if same else "damaged", detail=detail
        )

    async def names(self, folder: str) -> list[str]:  # noqa: ARG002
        return []

    async def entries(self) -> AsyncGenerator[list[tuple[str, str, str]], None]:
        """The objects under the prefix, by lists of a thousand."""
        objects = self._bucket.objects
        start = len(objects.key(""))
        async for keys in self._bucket.keys():
            found = [(key[start:].partition("/")[0], objects.where(key), key) for key in keys]
            yield [each for each in found if each[0] not in _NO_PROMPTS]


def _difference(digests: Digests, file: ManifestFile) -> str:
    if digests.at != file.bytes:
        return f"{digests.at} bytes, not {file.bytes}"
    if file.sha256 is not None and digests.sha256 != file.sha256:
        return f"its SHA-256 is {digests.sha256}, not {file.sha256}"
    return ""
