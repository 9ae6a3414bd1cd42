"""Arithmetic on spans of bytes: which are held, and which are missing."""

from __future__ import annotations

from collections.abc import Iterable

from mirror.models import Span


def merge(spans: Iterable[Span]) -> list[Span]:
    """The same bytes as ordered spans that neither touch nor overlap; empty ones vanish."""
    merged: list[Span] = []
    for span in sorted(spans):
        if span.size <= 0:
            continue
        if merged and span.start <= merged[-1].stop:
            merged[-1] = Span(merged[-1].start, max(merged[-1].stop, span.stop))
        else:
            merged.append(span)
    return merged


def missing(held: Iterable[Span], length: int) -> list[Span]:
    """The spans of 0 … ``length`` that are not held."""
    gaps: list[Span] = []
    at = 0
    for span in merge(held):
        if span.start > at:
            gaps.append(Span(at, min(span.start, length)))
        at = max(at, span.stop)
    if at < length:
        gaps.append(Span(at, length))
    return [gap for gap in gaps if gap.size > 0]


def prefix(held: Iterable[Span]) -> int:
    """How many bytes are held from 0 on without a gap."""
    merged = merge(held)
    return merged[0].stop if merged and merged[0].start == 0 else 0


def size(held: Iterable[Span]) -> int:
    """How many bytes are held."""
    return sum(span.size for span in merge(held))


def cut(spans: Iterable[Span], size: int) -> list[Span]:
    """The same spans in pieces of at most ``size`` bytes."""
    return [Span(at, min(at + size, span.stop)) for span in spans for at in range(span.start, span.stop, size)]
