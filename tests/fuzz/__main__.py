"""Fuzz one target for a while: with atheris, which follows the code's branches, or by chance where it is not there."""

from __future__ import annotations

import argparse
import importlib.util
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

if importlib.util.find_spec("atheris"):
    import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]

    with atheris.instrument_imports(include=["mirror"]):
        from tests.fuzz.targets import TARGETS
else:
    from tests.fuzz.targets import TARGETS

from tests.fuzz.seeds import TOKENS, seeds
from tests.properties import mutated


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 1 << 31))
    parser.add_argument("--corpus", type=Path, help="a folder to begin with, and to keep what was found in")
    parser.add_argument("--input", type=Path, help="only try this one, which a run has left")
    asked = parser.parse_args()
    if asked.input:
        TARGETS[asked.target](asked.input.read_bytes())
        return
    print(f"python -m tests.fuzz {asked.target} --seconds {asked.seconds} --seed {asked.seed}", file=sys.stderr)
    (_by_coverage if importlib.util.find_spec("atheris") else _by_chance)(asked)


def _by_coverage(asked: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        corpus = asked.corpus or Path(scratch) / "corpus"
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds()[asked.target]):
            (corpus / f"seed-{number}").write_bytes(seed)
        words = Path(scratch) / "words"
        escaped = ("".join(f"\\x{byte:02x}" for byte in token) for token in TOKENS.get(asked.target, ()))
        words.write_text("".join(f'"{token}"\n' for token in escaped))
        options = [f"-max_total_time={asked.seconds}", f"-seed={asked.seed}", "-timeout=20"]
        options += [f"-dict={words}"] if TOKENS.get(asked.target) else []
        options += ["-max_len=8192", "-rss_limit_mb=2048", "-print_final_stats=1", str(corpus)]
        atheris.Setup([sys.argv[0], *options], TARGETS[asked.target])
        atheris.Fuzz()


def _by_chance(asked: argparse.Namespace) -> None:
    luck: Any = random.Random(asked.seed)
    luck.below = luck.randrange
    valid, end, tried = seeds()[asked.target], time.monotonic() + asked.seconds, 0
    while time.monotonic() < end:
        data = mutated(luck.choice(valid), TOKENS.get(asked.target, ()), luck)
        try:
            TARGETS[asked.target](data)
        except BaseException:
            Path("crash").write_bytes(data)
            print(f"input {tried} is in ./crash: try it with --input crash", file=sys.stderr)
            raise
        tried += 1
    print(f"{tried} inputs, nothing found", file=sys.stderr)


if __name__ == "__main__":
    main()
