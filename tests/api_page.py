"""Writes the reference page of the Python API from the docstrings of its public names.

``python -m tests.api_page > docs/api.md``
"""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple

import mirror
from mirror import errors, events

PAGE = "docs/api.md"

_HEAD = """\
# The Python API

Everything here is typed, and stable as [the changes](CHANGELOG.md) say: the names that `import mirror` has, the events
of `mirror.events` and the errors of `mirror.errors`. Other modules are the house's own and change without notice.

In the examples `import mirror` was done and `settings` is what `mirror.load_settings(root="archive")` gave. They are
run by the tests, against a service on loopback; what stands behind `# →` is printed. This page is made from the
docstrings by `python -m tests.api_page`, and a test holds the two together.

## Three ways to use it

**With asyncio.** A `Mirror` is an archive that is open for work. It belongs to one event loop, and takes what one loop
can give: call `fetch` and `fetch_one` as often and as much at once as you like, they share connections, limits and
files.

```python
async with mirror.Mirror(settings) as m:
    async for manifest in m.fetch(ids):
        print(manifest.prompt_id, manifest.state)
```

**Without asyncio.** `mirror.fetch`, `fetch_one`, `sync`, `verify` and `repair` do the same and block. Each call opens
the archive and closes it, so for many ids make one call of `fetch`, not many of `fetch_one`.

```python
for manifest in mirror.fetch(ids, settings):
    print(manifest.prompt_id, manifest.state)
```

**In a notebook.** Both work in a cell: there `async with` may stand at the top, and the functions have a loop of their
own in a thread of their own. `mirror.Progress` is a widget there.

```python
with mirror.Progress() as progress:
    manifests = list(mirror.fetch(ids, settings, on_event=progress))
```

## What you can count on

- **Units.** Sizes are in bytes, times in seconds, moments in UTC (RFC 3339), unless a name's text says otherwise.
  `Duration` is a `float` of seconds, `Size` and `Count` are an `int`, `Json` is a `dict` as the service sent it.
- **Failures are values.** What is wrong with a prompt or a file stands in its manifest: `state` and `errors`. Raised
  is only what ends the run (the token is rejected, the disk is full, another run holds the root), as a
  `mirror.MirrorError`.
- **Cancellation.** A task may be cancelled at any `await`, by a timeout too, and a loop may be left with `break` or by
  an exception, Ctrl-C included. When the Mirror's block has ended (or the generator of a function is closed) nothing
  works on, the lock is free, and what came of unfinished files is kept: the next run asks for the rest.
- **Backpressure.** Who reads slowly holds the run up: no more than a few hundred prompts are taken up ahead, and a
  lazy `ids` is read no faster than that, however many it has. An `ids` that blocks is iterated in a thread, and holds
  nothing up.
- **Order.** Manifests come in the order in which their prompts end. An id is dealt with once in a fetch.
- **Threads.** Functions may be called in any thread, in several at once. One run at a time holds an archive: others
  raise `Locked`, or wait, with `FetchOptions(wait_lock=…)`. `verify` takes no lock. A `Mirror` is for the thread of
  its loop.
- **Observers** are called between two steps of the run: they must return at once. One that raises is told nothing
  more, the logger `mirror` says so, and the run goes on.
"""

_TITLES = {
    "mirror.client": "With asyncio",
    "mirror.blocking": "Without asyncio",
    "mirror.config": "Settings and options",
    "mirror.settings": "Settings and options",
    "mirror.models": "What comes of it",
    "mirror.checks": "Verify",
    "mirror.sampling": "Verify",
    "mirror.events": "Watching",
    "mirror.observers.progress": "Watching",
    "mirror.errors": "Errors",
}
"""The names' homes by purpose, in the page's order; other homes follow, each under the first line of its docstring."""


_EXAMPLE = re.compile(r"^Example::\n\n((?: {4}.*\n|\n)+)", re.MULTILINE)


class Example(NamedTuple):
    """Code that a docstring shows, and what it says that it prints."""

    of: str
    code: str

    @property
    def printed(self) -> list[str]:
        return re.findall(r"# → (.*)", self.code)


class Documented(NamedTuple):
    """Something public: ``name`` as a caller spells it, and its definition in the source."""

    name: str
    value: Any
    node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

    @property
    def doc(self) -> str:
        return inspect.cleandoc(ast.get_docstring(self.node) or "")

    @property
    def is_property(self) -> bool:
        return any(ast.unparse(each) == "property" for each in self.node.decorator_list)

    @property
    def fields(self) -> list[ast.AnnAssign]:
        """What a record is made of; what begins with an underscore is nobody's business."""
        return [n for n in self.node.body if isinstance(n, ast.AnnAssign) and not ast.unparse(n.target).startswith("_")]

    @property
    def parameters(self) -> list[str]:
        node = self.node
        if isinstance(node, ast.ClassDef):
            made = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
            return _names_of(made[0].args) if made else []
        return _names_of(node.args)

    @property
    def examples(self) -> list[Example]:
        found = _EXAMPLE.findall(f"{self.doc}\n")
        return [Example(self.name, textwrap.dedent(code).strip() + "\n") for code in found]

    @property
    def methods(self) -> list[Documented]:
        """Public ones that stand in the class's own body, properties among them."""
        if not isinstance(self.node, ast.ClassDef):
            return []
        return [
            Documented(f"{self.name}.{each.name}", getattr(self.value, each.name, None), each)
            for each in self.node.body
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and not each.name.startswith("_")
        ]


def documented(name: str, value: Any) -> Documented:
    """A class or function, and its definition."""
    node = ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]
    assert isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    return Documented(name, value, node)


def public() -> list[Documented]:
    """Every name of ``mirror.__all__`` that has a definition."""
    return [documented(f"mirror.{name}", getattr(mirror, name)) for name in mirror.__all__ if not name.startswith("_")]


def all_events() -> list[Documented]:
    """The events that an observer is told, in the order of their definition, and what they are made of."""
    found = [
        value for value in vars(events).values() if isinstance(value, type) and value.__module__ == "mirror.events"
    ]
    wanted = [each for each in found if issubclass(each, events.Event | enum.Enum) and each is not events.Event]
    return [documented(each.__name__, each) for each in wanted]


def _names_of(args: ast.arguments) -> list[str]:
    several = [each for each in (args.vararg, args.kwarg) if each is not None]
    return [each.arg for each in [*args.posonlyargs, *args.args, *args.kwonlyargs, *several] if each.arg != "self"]


# The page ------------------------------------------------------------------------------------------


def page() -> str:
    """The whole page as Markdown."""
    groups: dict[str, list[Documented]] = {title: [] for title in _TITLES.values()}
    for each in public():
        groups.setdefault(_title(each.value.__module__), []).append(each)
    parts = [_HEAD, _contents(groups)]
    for title, members in groups.items():
        parts += [f"## {title}\n", *(_entry(member) for member in members)]
        if title == "Watching":
            parts += ["### The events\n\nIn `mirror.events`:\n", *(_short(each) for each in all_events())]
        if title == "Errors":
            parts += [f"In `mirror.errors`:\n\n```\n{_tree()}\n```\n", _errors()]
    return "\n".join(parts)


def _title(home: str) -> str:
    return _TITLES.get(home) or (importlib.import_module(home).__doc__ or home).strip().splitlines()[0].rstrip(".:")


def _contents(groups: dict[str, list[Documented]]) -> str:
    rows = [f"| {title} | {', '.join(_link(each.name) for each in members)} |" for title, members in groups.items()]
    return "\n".join(["| | |", "|---|---|", *rows, ""])


def _link(name: str) -> str:
    anchor = re.sub(r"[^\w-]", "", name.lower())
    return f"[`{name.removeprefix('mirror.')}`](#{anchor})"


def _entry(each: Documented, level: int = 3) -> str:
    parts = [f"{'#' * level} `{each.name}`\n", f"```python\n{_signature(each)}\n```\n", _prose(each.doc)]
    return "\n".join([*parts, *(_entry(method, level + 1) for method in each.methods)])


def _short(each: Documented) -> str:
    """A heading less: there are many."""
    return f"```python\n{_signature(each)}\n```\n\n{_prose(each.doc)}"


def _signature(each: Documented) -> str:
    """As the formatter, which looks into Markdown too, would have it."""
    return re.sub(r"'([^'\"\\\\]*)'", r'"\1"', _written(each))


def _written(each: Documented) -> str:
    node = each.node
    if isinstance(node, ast.ClassDef):
        return _class(each, node)
    words = "async def" if isinstance(node, ast.AsyncFunctionDef) and not _yields(node) else "def"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if each.is_property:
        return f"{node.name}: {returns.removeprefix(' -> ')}"
    return f"{words} {node.name}{_arguments(node.args, returns)}"


def _class(each: Documented, node: ast.ClassDef) -> str:
    bases = [name for name in map(ast.unparse, node.bases) if not name.startswith("_") and name != "Struct"]
    shown = f"class {node.name}{'(' + ', '.join(bases) + ')' if bases else ''}"
    made = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name in ("__init__", "__call__")]
    values = [each for each in node.body if isinstance(each, ast.Assign)]
    lines = [*map(ast.unparse, each.fields), *map(ast.unparse, values)]
    lines += [f"def {each.name}{_arguments(each.args, ' -> None')}" for each in made]
    if not lines:
        return shown
    return "\n".join([f"{shown}:", *(textwrap.indent(line, "    ") for line in lines)])


def _arguments(args: ast.arguments, returns: str) -> str:
    given = [*args.posonlyargs, *args.args]
    defaults = [*[None] * (len(given) - len(args.defaults)), *args.defaults]
    told = [_argument(each, default) for each, default in zip(given, defaults, strict=True)]
    told[len(args.posonlyargs) : len(args.posonlyargs)] = ["/"] if args.posonlyargs else []
    told = [each for each in told if each != "self"]
    told += [f"*{ast.unparse(args.vararg)}"] if args.vararg else ["*"] if args.kwonlyargs else []
    told += [_argument(each, default) for each, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    told += [f"**{ast.unparse(args.kwarg)}"] if args.kwarg else []
    whole = f"({', '.join(told)}){returns}"
    if len(whole) <= 90:
        return whole
    return "(\n" + "".join(f"    {each},\n" for each in told) + f"){returns}"


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    return ast.unparse(argument) + (f" = {ast.unparse(default)}" if default is not None else "")


def _yields(node: ast.AST) -> bool:
    return any(isinstance(each, ast.Yield) for each in ast.walk(node))


def _prose(doc: str) -> str:
    """A docstring as Markdown: roles and double backticks become plain ones, ``Raises`` a list, examples code."""
    text = re.sub(r":(?:class|func|meth|mod):`([^`]+)`", r"`\1`", f"{doc}\n")
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    text = re.sub(r"^Raises:\n((?: {4}.*\n)+)", lambda found: _raises(found[1]), text, flags=re.MULTILINE)
    return _EXAMPLE.sub(lambda found: f"```python\n{textwrap.dedent(found[1]).strip()}\n```\n", text)


def _raises(block: str) -> str:
    lines = textwrap.dedent(block).strip().splitlines()
    told = [re.sub(r"^([\w, ]+): ", lambda n: f"- `{n[1].replace(', ', '`, `')}`: ", line) for line in lines]
    return "Raises:\n\n" + "\n".join(told) + "\n"


def _tree() -> str:
    lines = (errors.__doc__ or "").split("\n\n")[1]
    return textwrap.dedent(lines)


def _errors() -> str:
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.MirrorError)]
    rows = [f"| `{each.__name__}` | {each.severity} | {_first(each)} |" for each in kinds[1:]]
    return "\n".join(["| error | ends | means |", "|---|---|---|", *rows, ""])


def _first(kind: type) -> str:
    return _prose(inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0]).strip().replace("\n", " ").replace("|", "\\|")


def examples() -> Iterator[Example]:
    """All that the public names show, those of methods and events among them."""
    for each in [*public(), *all_events()]:
        yield from each.examples
        for method in each.methods:
            yield from method.examples


if __name__ == "__main__":
    print(page(), end="")
