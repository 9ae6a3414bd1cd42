"""The command line as a stage of a pipeline: each recipe of the pages as it stands there, and what they say of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from mirror.demo.origin import DemoOrigin
from tests.conftest import Archive
from tests.helpers import done_prompt, running
from tests.origin import Origin

CHECKOUT = Path(__file__).parents[1]
DUCKDB = """
import duckdb, sys
made = duckdb.execute(sys.argv[2])
names, rows = [column[0] for column in made.description], made.fetchall()
if names != ["Count"]:
    for row in [names, *rows]:
        print("", *("NULL" if cell is None else cell for cell in row), "", sep="│")
"""
"""DuckDB's command is no package of Python's; this prints the same cells."""

BLOCKS = re.compile(r"^```sh\n(?P<command>.*?)^```\n(?:\n```\n(?P<output>.*?)^```$)?", re.MULTILINE | re.DOTALL)


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The demo's service, whose task goes on running, and the pages' commands."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, code in {"mirror": "-m mirror", "duckdb": f"-c '{DUCKDB}'"}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {code} "$@"\n')
        (programs / name).chmod(0o755)
    loop, origin = asyncio.new_event_loop(), DemoOrigin(polls=1000)
    loop.run_until_complete(origin.__aenter__())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    ids = [prompt.prompt_id for prompt in origin.prompts]
    (tmp_path / "ids.txt").write_text("".join(f"{each}\n" for each in ids))
    campaigns = zip(ids, ["spring"] * 2 + ["summer"] * 3, strict=True)
    (tmp_path / "campaigns.csv").write_text("promptId,campaign\n" + "".join(f"{i},{name}\n" for i, name in campaigns))
    try:
        yield {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(CHECKOUT),
            "MIRROR_API_BASE_URL": origin.url,
            "MIRROR_API_TOKEN": origin.token,
            "MIRROR_SECURITY_ALLOW_PRIVATE_ADDRESSES": "true",
            "MIRROR_TRANSFER_MIN_FREE_SPACE": "0",
        }
    finally:
        asyncio.run_coroutine_threadsafe(origin.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def told(output: str) -> list[str]:
    """The lines in any order, since prompts finish in any; of a table the cells alone, without its row of types."""
    cells = [re.sub(r" *│ *", "│", line).strip() for line in output.splitlines() if not re.match("[┌├└]", line)]
    return sorted(line for line in cells if not re.fullmatch(r"(│(varchar|u?int\d+))+│", line))


def run(command: str, environ: Mapping[str, str]) -> str:
    done = subprocess.run(["bash", "-c", command], env=environ, capture_output=True, timeout=60, check=False, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stderr.count("rror:") == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("jq") is None or shutil.which("bash") is None, reason="there is no jq")
@pytest.mark.parametrize(("page", "count"), [("README.md", 3), ("docs/stage.md", 8)])
def test_every_recipe_gives_what_the_page_shows(environ: dict[str, str], page: str, count: int) -> None:
    text = (CHECKOUT / page).read_text("utf-8")
    if page == "README.md":
        text = text.partition("### A stage of a pipeline")[2].partition("\n## ")[0]
    found = list(BLOCKS.finditer(text))
    assert len(found) == count
    for block in found:
        assert told(run(block["command"], environ)) == told(block["output"] or ""), block["command"]


def test_a_manifest_comes_while_stdin_is_open_and_a_line_that_cannot_be_read_has_none(
    origin: Origin, archive: Archive
) -> None:
    for prompt_id in ("p", "q"):
        done_prompt(origin, prompt_id, "a.png")

    with running(archive, "fetch", "-i", "-", "--json", stdin=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        for given in ("p\n", "p\n\nq\n"):
            process.stdin.write(given)
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["prompt_id"] == given.split()[-1]
        os.write(process.stdin.fileno(), b"\xff\n")
        out, err = process.communicate(timeout=20)

    assert (process.returncode, out, "stdin:5: not UTF-8" in err) == (3, "", True), err
