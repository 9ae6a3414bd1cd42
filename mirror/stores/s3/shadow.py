"""What stands in for an upload where an object is there already that may be this one."""

from __future__ import annotations

from mirror.models import Span
from mirror.stores.s3.checksums import composite


class Shadow:
    """Stands in for an upload where an object of that size is there already: parts are hashed and not sent."""

    def __init__(self, key: str, size: int) -> None:
        self.key = key
        self.part_size = size
        self._parts: dict[int, tuple[int, str]] = {}

    @property
    def held(self) -> list[Span]:
        return [
            Span((number - 1) * self.part_size, (number - 1) * self.part_size + size)
            for number, (size, _) in self._parts.items()
        ]

    def note(self, number: int, size: int, checksum: str) -> None:
        self._parts[number] = (size, checksum)

    @property
    def size(self) -> int:
        return sum(size for size, _ in self._parts.values())

    @property
    def composite(self) -> str | None:
        return composite(self._parts[number][1] for number in sorted(self._parts))
