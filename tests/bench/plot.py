"""The figure beside the page: wall seconds of each tool as a multiple of the fastest peer's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from tests.bench.results import Bar, Section

_OURS, _PEER, _TEXT = "#e8590c", "#4c8bf5", "#868e96"
"""Seen on white and on black."""

_WIDEST = 4.0
"""Longer bars are cut off there, and say how long they are."""


def write(sections: Iterable[Section], path: Path) -> None:
    """Draw all sections that compare tools."""
    shown = [section for section in sections if {bar.ours for bar in section.bars} == {True, False}]
    if not shown:
        return
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "bench", "text.color": _TEXT, "font.size": 9})
    groups = [_fastest(section.bars) for section in shown]
    figure = Figure(figsize=(8, sum(0.22 * len(bars) + 0.45 for bars in groups)), layout="constrained")
    axes = figure.subplots(len(shown), 1, squeeze=False, height_ratios=[len(bars) + 1 for bars in groups])
    for axis, section, bars in zip(axes[:, 0], shown, groups, strict=True):
        axis.set_title(section.title, loc="left", fontsize=9, color=_TEXT)
        unit = min(bar.seconds for bar in bars if not bar.ours)
        for place, bar in enumerate(bars):
            ratio = bar.seconds / unit
            axis.barh(place, min(ratio, _WIDEST), color=_OURS if bar.ours else _PEER, height=0.75)
            told = f" {ratio:.2f}  ({bar.seconds:.2f} s)"
            axis.text(min(ratio, _WIDEST), place, told, va="center", fontsize=8, color=_TEXT)
        axis.set_yticks(range(len(bars)), [bar.label for bar in bars], color=_TEXT)
        axis.axvline(1, color=_TEXT, linewidth=0.8, linestyle=":")
        axis.set_xlim(0, _WIDEST * 1.2)
        axis.invert_yaxis()
        axis.set_xticks([])
        axis.tick_params(length=0)
        for spine in axis.spines.values():
            spine.set_visible(False)
    figure.savefig(path, transparent=True, metadata={"Date": None})


def _fastest(bars: list[Bar]) -> list[Bar]:
    """Each tool at its fastest: the mirror first, then peers from fast to slow."""
    best: dict[str, Bar] = {}
    for bar in sorted(bars, key=lambda bar: (not bar.ours, bar.seconds)):
        best.setdefault(bar.label.partition(",")[0], bar)
    return list(best.values())
