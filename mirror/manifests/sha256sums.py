"""A list that ``sha256sum -c`` checks: one line for each file, and for each manifest."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator

from mirror.holdings import Holding
from mirror.manifests.document import decode
from mirror.manifests.formats import Export, FileFormat, Prompts
from mirror.models import ManifestFile


async def _blocks(prompts: Prompts, export: Export) -> AsyncGenerator[bytes, None]:
    async for holding in prompts:
        lines = []
        for file in holding.manifest.files:
            path = export.path(holding, file)
            if path is None:
                export.lacks(holding, file, "the manifest names no object of this bucket")
            elif file.sha256 is None:
                export.lacks(holding, file, _why_unknown(holding, file))
            else:
                lines.append(line(file.sha256, path))
        manifest = export.path(holding)
        assert manifest is not None
        yield "".join([*lines, line(hashlib.sha256(holding.content).hexdigest(), manifest)]).encode()


def _why_unknown(holding: Holding, file: ManifestFile) -> str:
    """What is no digest counts as unknown: what the manifest has there, its text says."""
    told = next((each.sha256 for each in decode(holding.content).files if each.path == file.path), None)
    if told is None:
        return "its SHA-256 is not known: the store that copied it tells none"
    return "its SHA-256 is no lower-case hex digest"


def line(digest: str, path: str) -> str:
    r"""As coreutils writes it: two spaces, and a backslash in front where the name has characters to be spelled."""
    spelled = path.replace("\\", r"\\").replace("\n", r"\n").replace("\r", r"\r")
    mark = "" if spelled == path else "\\"
    return f"{mark}{digest}  {spelled}\n"


FORMAT = FileFormat(
    name="sha256sums",
    about="A list of SHA-256 digests: `sha256sum -c` in the archive's folder checks it.",
    suffix=".sha256",
    blocks=_blocks,
)
