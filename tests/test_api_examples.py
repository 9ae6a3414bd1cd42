"""Every public name is documented: what it takes, raises and is made of, with an example that runs."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import types
from pathlib import Path
from typing import Any

import pytest

import mirror
from tests.api_page import PAGE, Documented, Example, all_events, examples, page, public
from tests.conftest import Archive
from tests.helpers import done_prompt, mirrored
from tests.origin import Origin, documented_example

EVERYTHING = [each for name in public() for each in (name, *name.methods)]
EXAMPLES = list(examples())


@pytest.fixture
def settings(origin: Origin, archive: Archive, no_helpers: None) -> mirror.Settings:
    """An archive with a prompt in it, and a service that knows another one, as the documentation shows it."""
    prompt_id, _ = documented_example(origin)
    origin.history([{"promptId": prompt_id, "createTime": 1_700_000_000, "state": 30}])
    done_prompt(origin, "before", "a.png", "b.png")
    assert mirrored(archive, "before").code == 0
    Path("mirror.toml").touch()
    return archive.settings(archive_durability="fast")


@pytest.mark.parametrize("example", EXAMPLES, ids=[f"{each.of}" for each in EXAMPLES])
def test_an_example_runs(settings: mirror.Settings, example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    code = compile(example.code, f"<example of {example.of}>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names: dict[str, Any] = {"mirror": mirror, "settings": settings}
    run = types.FunctionType(code, names)()
    if inspect.iscoroutine(run):
        asyncio.run(run)
    out = capsys.readouterr().out
    assert [text for text in example.printed if text not in out] == [], out


@pytest.mark.parametrize("each", EVERYTHING, ids=[each.name for each in EVERYTHING])
def test_a_public_name_is_documented(each: Documented) -> None:
    assert each.doc
    assert each.examples or each.is_property, "an example is missing: a block that begins with Example::"
    assert not re.search(r"^Examples?:?$", each.doc, re.MULTILINE), "an example begins with Example::"
    made_of = [] if each.is_property else [*each.parameters, *(ast.unparse(field.target) for field in each.fields)]
    assert [name for name in made_of if f"``{name}``" not in each.doc] == []


def test_an_event_says_what_it_is_made_of() -> None:
    common = mirror.Event.__doc__ or ""
    for event in all_events():
        assert event.doc
        names = [ast.unparse(field.target) for field in event.fields]
        assert [name for name in names if f"``{name}``" not in event.doc + common] == [], event.name


def test_the_page_is_what_the_docstrings_say() -> None:
    written = (Path(__file__).parents[1] / PAGE).read_text("utf-8")
    assert written == page(), f"make it anew: python -m tests.api_page > {PAGE}"


def test_every_link_of_the_page_leads_somewhere() -> None:
    text = page()
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    headings = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    links = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert links
    assert links <= headings
