"""A catalog with bytes of its file changed: used as far as it can be read, or said to be damaged; and always soon."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.catalog import Catalog
from mirror.errors import CatalogError
from mirror.models import PromptId
from mirror.stores import Wanted
from tests.catalog_runs import STORED, prompt
from tests.properties import examples

PROMPTS = 30


async def _made(path: Path) -> None:
    catalog = Catalog.open(path, durable=False)
    for number in range(1, PROMPTS + 1):
        await catalog.save_prompt(prompt(f"p{number}", STORED), "r")
    await catalog.close()


@pytest.fixture(scope="module")
def sound() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "catalog.sqlite"
        asyncio.run(_made(path))
        return path.read_bytes()


def used(content: bytes) -> bool:
    """Whether all that is asked of a catalog with these bytes could be answered."""

    async def ask(path: Path) -> None:
        catalog = Catalog.open(path, durable=False)
        try:
            async with asyncio.timeout(60):
                pages = [page async for page in catalog.prompt_ids()]
                for page in pages:
                    for record in (await catalog.records(page)).values():
                        assert isinstance(record.wanted(), Wanted)
                await catalog.untried(0, 10)
                await catalog.counts()
                await catalog.standing()
                await catalog.count_files()
                await catalog.records_in(["p1", "p2"])
                await catalog.claim(PromptId("p7"), "r2")
                await catalog.claim(PromptId("new"), "r2")
        finally:
            await catalog.close()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "catalog.sqlite"
        path.write_bytes(content)
        with contextlib.suppress(CatalogError):
            asyncio.run(ask(path))
            return True
        return False


def test_a_sound_one_is_used(sound: bytes) -> None:
    assert used(sound)


def test_a_message_about_what_is_no_text(sound: bytes) -> None:
    """SQLite quotes the damaged text, and Python cannot decode what it quotes."""
    assert not used(sound.replace(b"CREATE TABLE prompts", b"CREATE T\xa7BLE prompts"))


def test_rows_that_follow_one_another_in_a_ring(sound: bytes) -> None:
    """The last row's number is one of these bytes; lower than the one before, it once made a page that never ended."""
    places = [at for at, byte in enumerate(sound) if byte == PROMPTS and at > 4096]
    found = [used(sound[:at] + b"\0" + sound[at + 1 :]) for at in places]
    assert set(found) == {True, False}


@examples(60)
@given(st.data())
def test_any_bytes_changed(sound: bytes, data: st.DataObject) -> None:
    edit = st.tuples(st.integers(0, len(sound) - 1), st.integers(0, 255))
    content = bytearray(sound)
    for at, byte in data.draw(st.lists(edit, min_size=1, max_size=12)):
        content[at] = byte
    used(bytes(content))
