"""What a format is: one file in this folder that defines ``FORMAT``. There is no list of them to be kept."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from mirror import manifests
from mirror.holdings import Absent, Holding, Holdings
from mirror.models import ManifestFile
from mirror.stores.local import LocalStore

_SHA256 = re.compile("[0-9a-f]{64}")
_PREFIX = f"{manifests.__name__}."

Prompts = AsyncIterator[Holding]
"""The prompts to be told of, one after the other. Whoever takes them holds no more than a few at a time."""


class Export:
    """An export under way: where files stand, how they are read, and the account of what is told of.

    ``tell`` is told of what is left out. ``links`` allows a format to make hard links where it would copy a file;
    ``durable`` is False where nobody waits for the disk.
    """

    def __init__(
        self, holdings: Holdings, tell: Callable[[Absent], None], *, links: bool = False, durable: bool = True
    ) -> None:
        self.links = links
        self.durable = durable
        self.prompts = self.files = self.bytes = 0
        self._before = (0, 0, 0)
        self._holdings = holdings
        self._tell = tell

    @property
    def disk(self) -> LocalStore | None:
        """The local store; None where it is the bucket that is read."""
        return self._holdings.disk

    async def given(self, found: AsyncIterator[Holding | Absent]) -> AsyncGenerator[Holding, None]:
        """The prompts that are there, counted; what is not is told."""
        async for each in found:
            if isinstance(each, Absent):
                self._tell(each)
                continue
            self._before = (self.prompts, self.files, self.bytes)
            self.prompts += 1
            self.files += len(each.manifest.files)
            self.bytes += sum(file.bytes for file in each.manifest.files)
            yield _with_digests(each)

    def path(self, holding: Holding, file: ManifestFile | None = None) -> str | None:
        """Where a file stands (None: the manifest): relative to the root, or to the bucket's prefix.

        None of a file that the manifest does not say to be in this bucket.
        """
        return self._holdings.path(holding, file)

    def blocks(self, holding: Holding, file: ManifestFile) -> AsyncGenerator[bytes, None]:
        """A file's bytes, as :meth:`Holdings.blocks` gives them."""
        return self._holdings.blocks(holding, file)

    def lacks(self, holding: Holding, file: ManifestFile, why: str) -> None:
        """Say that a file is left out. The export goes on without it, and its exit code says so."""
        self.files -= 1
        self.bytes -= file.bytes
        self._tell(Absent(what=f"{holding.folder}/{file.path}", why=why))

    def leaves_out(self, holding: Holding, why: str) -> None:
        """Say that the prompt that was given last is left out altogether."""
        self.prompts, self.files, self.bytes = self._before
        self._tell(Absent(what=holding.folder, why=why))


def _with_digests(holding: Holding) -> Holding:
    """What is called a SHA-256 and is none counts as unknown: nothing but a digest goes into a list of them."""
    files = holding.manifest.files
    if all(file.sha256 is None or _SHA256.fullmatch(file.sha256) for file in files):
        return holding
    sound = [file if _SHA256.fullmatch(file.sha256 or "") else replace(file, sha256=None) for file in files]
    return replace(holding, manifest=replace(holding.manifest, files=tuple(sound)))


class FileFormat(Struct, frozen=True, kw_only=True):
    """A format that is one file. ``blocks`` gives its bytes as the prompts come, as much at a time as it likes.

    ``about`` is a line of the help. ``suffix`` ends the names of files that tell of one prompt each. What is no text is
    not shown on a terminal.
    """

    name: str
    about: str
    suffix: str
    blocks: Callable[[Prompts, Export], AsyncGenerator[bytes, None]]
    is_text: bool = True


class FolderFormat(Struct, frozen=True, kw_only=True):
    """A format that is a folder. ``fill`` makes what stands in it; all of that, and its names, is durable then.

    The folder is empty, and nobody else knows of it yet. ``links`` where it can make hard links (``Export.links``).
    """

    name: str
    about: str
    fill: Callable[[Prompts, Export, Path], Awaitable[None]]
    links: bool = False


Format = FileFormat | FolderFormat


def formats() -> dict[str, Format]:
    """All formats by name: what the modules of this folder define as ``FORMAT``."""
    modules = [importlib.import_module(each.name) for each in pkgutil.iter_modules(manifests.__path__, _PREFIX)]
    found: list[Format] = [module.FORMAT for module in modules if hasattr(module, "FORMAT")]
    return {each.name: each for each in sorted(found, key=lambda each: each.name)}
