"""Keeps secrets out of log records, whoever wrote them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from mirror.urls import REDACTED, redact

FIELDS = ("run_id", "prompt_id", "url", "attempt", "cause", "error")
"""What a record may carry beside its message, as attributes (``extra=``)."""

_tracebacks = logging.Formatter()


class Redactor(logging.Filter):
    """Puts ``***`` in the place of every secret, of signature parameters' values and of passwords in URLs.

    Lets every record through, rewritten in place: message, :data:`FIELDS` and traceback. What it has
    seen keeps neither arguments nor exception, so no handler after it can show them in another way. Set on a handler,
    it sees the records of child loggers too.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        spellings = {spelling for secret in secrets if secret for spelling in _spellings(secret)}
        # The longest first: of a secret that contains another nothing may be left over.
        pattern = "|".join(re.escape(spelling) for spelling in sorted(spellings, key=len, reverse=True))
        self._secrets = re.compile(pattern) if pattern else None

    def redact(self, text: str) -> str:
        """``text`` without what must not be shown; of the same number of lines."""
        return redact(self._secrets.sub(REDACTED, text) if self._secrets else text)

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - whatever an argument's own formatting raises
            message = str(record.msg)
        record.msg, record.args = self.redact(message), None
        if record.exc_info and record.exc_info[0]:
            record.error = getattr(record, "error", None) or record.exc_info[0].__name__
            record.exc_text = _tracebacks.formatException(record.exc_info)
        record.exc_info = None
        for name in (*FIELDS, "exc_text", "stack_info"):
            value = getattr(record, name, None)
            if value and not isinstance(value, int | float):
                setattr(record, name, self.redact(str(value)))
        return True


def _spellings(secret: str) -> set[str]:
    """A secret as it may come to stand in a text: itself, in a URL, in a Python literal, in JSON."""
    quoted = {quote(secret), quote(secret, safe=""), quote_plus(secret)}
    return {secret, *quoted, *(q.lower() for q in quoted), repr(secret)[1:-1], json.dumps(secret)[1:-1]}
