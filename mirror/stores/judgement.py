"""What is asked of all bytes of a file before it is published: whether they are those that were told of, and all."""

from __future__ import annotations

from mirror.digests import Digests
from mirror.errors import ChecksumMismatch, NotMedia, Severity, Truncated
from mirror.media.look import Look
from mirror.stores import Head, Target

UNFIT = (ChecksumMismatch, NotMedia, Truncated)
"""What :func:`judge` raises: bytes of which nothing is kept."""


def look_for(target: Target) -> Look | None:
    """A look at a file's structure as it comes; none at one that was mirrored before: it must come as it was."""
    return None if target.known or target.sha256 else Look()


def judge(digests: Digests, head: Head, target: Target) -> str:
    """Accept a file by what has seen all its bytes; returns what is worth a line of the log, "" for nothing.

    Raises:
        ChecksumMismatch: other bytes came than the head, or the target, states.
        NotMedia: it has the length that the origin told, and is cut off all the same.
        Truncated: it is cut off, and nobody told its length: another try may bring the rest.
    """
    for check, expected in head.checks.items():
        if digests.hex(check) != expected:
            raise ChecksumMismatch(f"the bytes that came do not have the {check} that the origin states")
    if target.sha256 and digests.sha256 != target.sha256:
        raise ChecksumMismatch(
            "the origin serves other bytes than those mirrored before; `mirror forget` the prompt to take them",
            severity=Severity.ITEM,
        )
    if digests.look is None:
        return ""
    found = digests.look.verdict()
    if found.missing:
        told = f"a {found.kind} file that is cut off: {found.missing}"
        raise Truncated(told) if head.length is None else NotMedia(told)
    return f"{found.trailing} bytes follow the end of a {found.kind} file" if found.trailing else ""
