"""Observers are told of every :class:`mirror.events.Event` and cannot interfere; a file is one observer.

``tally`` counts and makes the summary, ``progress`` draws a bar (in a notebook a widget), ``log`` writes log records.
``metrics`` writes them for Prometheus, by way of ``textfile``.
``text`` and ``redact`` are what they share: words for people, and what must never be shown to them.
An observer is a callable that returns at once and does not raise.
"""
