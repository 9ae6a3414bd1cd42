"""JSON lines: an object for each file, with the columns of ``rows``."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec

from mirror.manifests.formats import Export, FileFormat, Prompts
from mirror.manifests.rows import rows_of


async def _blocks(prompts: Prompts, export: Export) -> AsyncGenerator[bytes, None]:  # noqa: ARG001
    encoder = msgspec.json.Encoder()
    async for holding in prompts:
        yield encoder.encode_lines(list(rows_of(holding.folder, holding.manifest)))


FORMAT = FileFormat(
    name="jsonl",
    about="JSON lines: an object for each file.",
    suffix=".jsonl",
    blocks=_blocks,
)
