"""What happens in a worker, collected until it is handed on: bytes are summed up, all else stays in its order."""

from __future__ import annotations

from typing import cast

from mirror.events import BytesReceived, BytesSent, Event, InARun


class Collector:
    """An observer that keeps what it is told. Belongs to one event loop."""

    def __init__(self) -> None:
        self._events: list[InARun] = []
        self._received = 0
        self._sent = 0

    def __call__(self, event: Event, /) -> None:
        if isinstance(event, BytesReceived):
            self._received += event.bytes
        elif isinstance(event, BytesSent):
            self._sent += event.bytes
        else:
            self._events.append(cast("InARun", event))  # to look among fourteen kinds costs more than all else here

    def take(self) -> list[InARun]:
        """All that has come since the last time."""
        events = self._events
        events += [BytesReceived(bytes=self._received)] if self._received else []
        events += [BytesSent(bytes=self._sent)] if self._sent else []
        self._events, self._received, self._sent = [], 0, 0
        return events
