"""How a log record looks: a line for people, or a line of JSON for programs."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

import msgspec

from mirror.observers.redact import FIELDS
from mirror.observers.text import escape, one_line, shorten


class TextFormatter(logging.Formatter):
    """``12:34:56 warning  message``, local time, one line a record.

    A traceback follows on lines that begin with four spaces and a bar, so that no text from elsewhere can pass for a
    record.
    """

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{clock} {record.levelname.lower():<8} {one_line(_message(record))}"
        below = "\n".join(text for text in (record.exc_text, record.stack_info) if text)
        return line + "".join(f"\n    | {one_line(row)}" for row in below.split("\n") if row)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time`` (RFC 3339, UTC), ``level``, ``message``, what is known of
    :data:`mirror.observers.redact.FIELDS`, and ``traceback`` where an exception was logged.
    """

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry: dict[str, str | int | float] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "message": _encodable(_message(record)),
        }
        for name in FIELDS:
            value = getattr(record, name, None)
            if value is not None and value != "":
                entry[name] = value if isinstance(value, int | float) else _encodable(str(value))
        below = "\n".join(text for text in (record.exc_text, record.stack_info) if text)
        if below:
            entry["traceback"] = _encodable(below)
        # JSON itself escapes C0 only; some readers end a line at U+0085 or U+2028, and a terminal obeys C1.
        return escape(msgspec.json.encode(entry).decode(), lambda character: f"\\u{ord(character):04x}")


def _message(record: logging.LogRecord) -> str:
    """The message, bounded. Cut here and not before: half a secret would not have been recognised as one."""
    return shorten(record.getMessage(), 4000)


def _encodable(text: str) -> str:
    """``text`` without lone surrogates, which neither UTF-8 nor JSON can carry."""
    return text.encode("utf-8", "backslashreplace").decode()
