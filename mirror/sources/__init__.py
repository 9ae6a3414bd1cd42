"""Where promptIds come from: asynchronous streams of batches; a file is one source.

A batch is what one read brought, so that whoever takes it can look up many ids at once, and it is handed on before
anything more is read. Ids are raw text: nothing has judged them yet, and one may come several times. A source reads
only when it is asked for the next batch, and lets go of what it holds when it is closed (``aclose()``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator

Batch = list[str]
"""At least one id."""

Source = AsyncIterator[Batch]
"""The batches, in order, each as soon as it is there."""
