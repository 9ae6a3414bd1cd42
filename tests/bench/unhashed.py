"""The mirror without SHA-256, to see what that costs: `python -m tests.bench.unhashed fetch …`.

A digest that does nothing takes the place of the real one in this process. Its manifests are worth nothing.
"""

from __future__ import annotations

import types

from mirror import __main__, digests


class Nothing:
    """A digest of nothing."""

    def update(self, data: object) -> None:
        """Does nothing."""

    def hexdigest(self) -> str:
        return "0" * 64

    def copy(self) -> Nothing:
        return self


if __name__ == "__main__":
    vars(digests)["hashlib"] = types.SimpleNamespace(sha256=Nothing, new=lambda *_, **__: Nothing())
    __main__.main()
