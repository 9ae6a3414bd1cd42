"""A random part of many files, for archives too large to be read whole each time."""

from __future__ import annotations

import random
import secrets


class Sample:
    """Which files are looked at: each with the chance ``share`` (0 to 1), or ``count`` of them in all.

    ``seed`` repeats a choice, as long as the archive is the same; None takes one from the system. ``total`` is of how
    many files was chosen, known once it was begun. For one verify at a time.

    Example::

        sample = mirror.Sample(count=1, seed=7)
        looked = [checked for checked in mirror.verify(settings, sample=sample) if checked.file is not None]
        print(len(looked), "of", sample.total)  # → 1 of 2
    """

    def __init__(self, *, share: float | None = None, count: int | None = None, seed: int | None = None) -> None:
        self.share = share
        self.count = count
        self.seed = secrets.randbits(32) if seed is None else seed
        self.total = 0
        self._left = self._needed = 0
        self._random = random.Random(self.seed)  # noqa: S311  # nosec B311 # no secret: it is told

    def begin(self, total: int) -> None:
        """Start over, with ``total`` files to come. A verify does it.

        Example::

            sample = mirror.Sample(count=10)
            sample.begin(1000)
            print(sum(sample.takes_next() for _ in range(1000)), "of", sample.total)  # → 10 of 1000
        """
        self._random = random.Random(self.seed)  # noqa: S311  # nosec B311 # as above
        self.total = self._left = total
        self._needed = min(self.count or 0, total)

    def takes_next(self) -> bool:
        """Whether the next file is one of the sample. A verify asks.

        Example::

            sample = mirror.Sample(share=1.0)
            sample.begin(1)
            print(sample.takes_next())  # → True
        """
        chance = self._random.random()
        if self.share is not None:
            return chance < self.share
        # Each with the share that is still needed of those still to come: at the end exactly so many were taken.
        taken = chance * self._left < self._needed
        self._left -= 1
        self._needed -= taken
        return taken


def parse_sample(text: str, seed: int | None = None) -> Sample:
    """``"1%"`` or ``"0.5%"`` of the files, or ``"200"`` of them.

    Raises:
        ValueError: it is neither.
    """
    told = text.strip()
    try:
        if told.endswith("%"):
            share = float(told[:-1]) / 100
            if not 0 < share <= 1:
                raise ValueError
            return Sample(share=share, seed=seed)
        count = int(told)
        if count < 1:
            raise ValueError
    except ValueError:
        raise ValueError(f"expected a percentage such as 1%, or a number of files such as 200, got {text!r}") from None
    return Sample(count=count, seed=seed)
