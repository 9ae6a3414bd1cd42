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
from tests import media
from tests.conftest import Archive
from tests.helpers import done_prompt, running
from tests.origin import Origin, answer, task

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
    lines = [f"{ids[0]}\r", f"\t{ids[1]} # the second", "# no id", "", *ids[2:]]
    (tmp_path / "ids.txt").write_text("\n".join(lines), newline="\n")
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
        asyncio.run_coroutine_threadsafe(origin.__aexit__(None, None, None), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()


def told(output: str) -> list[str]:
    """The lines in any order, since prompts finish in any; of a table the cells alone, without its row of types."""
    cells = [re.sub(r" *│ *", "│", line).strip() for line in output.splitlines() if not re.match("[┌├└]", line)]
    return sorted(line for line in cells if not re.fullmatch(r"(│(varchar|u?int\d+))+│", line))


def run(command: str, environ: Mapping[str, str]) -> str:
    shell = ["bash", "-c", command]
    done = subprocess.run(shell, env=environ, capture_output=True, timeout=300, check=False, text=True)
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
        output = run(block["command"], environ)
        assert told(output) == told(block["output"] or ""), block["command"]
        if "$ids" in block["command"]:
            assert output == block["output"], "that is what it is for: the order"


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
        out, err = process.communicate(timeout=60)

    assert (process.returncode, out, "stdin:5: not UTF-8" in err) == (3, "", True), err


@pytest.mark.skipif(
    shutil.which("xargs") is None or shutil.which("sha256sum") is None, reason="there are no such tools"
)
def test_the_recipes_take_any_id(environ: dict[str, str], origin: Origin, archive: Archive, tmp_path: Path) -> None:
    """Also those that a shell, an option's parser or a path would read as something else."""
    ids = ["p", "--dry-run", "a/b", "..", "it's", 'a "b', "a\\b"]
    for number, prompt_id in enumerate(ids):
        url = origin.add(f"/{number}.png", media.png(seed=number))
        origin.prompt(prompt_id, answer(task(prompt_id, images=[(None, url)])))
    (tmp_path / "ids.txt").write_text("".join(f"{each}\n" for each in ids))
    environ = {**archive.environment(), "PATH": environ["PATH"], "PYTHONPATH": environ["PYTHONPATH"]}
    page = (CHECKOUT / "docs/stage.md").read_text("utf-8")
    [xargs] = re.findall(r"`(xargs -d .*?)`", page)
    [sums] = re.findall(r"^(mirror export sha256sums .*)$", page, re.MULTILINE)

    states = {found["prompt_id"]: found["state"] for found in map(json.loads, run(xargs, environ).splitlines())}

    assert states == dict.fromkeys(ids, "complete")
    assert run(sums, environ) == "sound\n"
    assert len(run(sums.partition(" | ")[0], environ).splitlines()) == 2 * len(ids)
