"""The house keeps its floors: imports go strictly downward, and nothing heavy is carried in before it is needed."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mirror

PACKAGE = Path(mirror.__file__).parent

FLOORS: tuple[tuple[str, str], ...] = (
    ("errors; what needs nothing of ours", "errors models times"),
    ("settings", "settings"),
    (
        "rules and tools of one kind each",
        (
            "addresses agenda endings engines.channel limits media media.confinement media.walk names observers.text "
            "observers.textfile sampling signatures trust"
        ),
    ),
    (
        "the front pages of folders",
        ". demo engines engines.ray gallery h1 manifests observers sources stores stores.s3",
    ),
    ("a file's structure, a file a format", "media.gif media.heif media.jpeg media.mp4 media.png media.webp"),
    ("a file's structure, whichever it is", "media.look"),
    ("what libraries say of media, in a process of its own", "media.reading"),
    ("that process, and how it is asked", "media.helper media.worker"),
    ("who asks it", "media.crew"),
    (
        "what happens, where from, what it means; digests",
        "answers config digests events guard h1.head schemas spans stores.workers urls",
    ),
    (
        "parts of the folders, of a kind each",
        (
            "catalog.records catalog.schema engines.collector engines.shares h1.chunks inflight sources.lines "
            "sources.records stores.files stores.s3.sigv4"
        ),
    ),
    (
        "the bucket's: addresses, checksums, rights, signatures, threads",
        "stores.s3.address stores.s3.checksums stores.s3.policy stores.s3.signing stores.s3.threads",
    ),
    ("a body in a thread's hands, or the kernel's", "h1.loan h1.outgoing"),
    ("a body as it comes in", "h1.body"),
    ("TLS", "h1.tls"),
    ("a connection", "h1.connection"),
    ("an answer on it", "h1.answer"),
    (
        "connections that are kept, and those of a proxy; how origins are gone to; what errors mean",
        "h1.pool routes session wire_errors",
    ),
    ("patience, the wire, the plan", "http plan retry segments manifests.document manifests.rows"),
    (
        "rows, journals, counts, what a bucket refuses; whose turn it is at a file",
        (
            "catalog.rows engines.turns stores.disk stores.journal stores.lock observers.redact observers.tally "
            "stores.s3.errors"
        ),
    ),
    (
        "bytes as they come, tables",
        "sources.blocking sources.compressed sources.tables",
    ),
    (
        "the queue, the merging of two; what is made for somebody, whole or not at all",
        "catalog.merge catalog.queue outputs",
    ),
    (
        "the service, one request, the record, the sources, the bucket's control plane",
        (
            "api hooks ping catalog download verdict stores.judgement stores.linking stores.publishing stores.recovery "
            "stores.s3.control"
        ),
    ),
    ("a finished file, opened", "stores.finished"),
    (
        "sources to choose from, lines to read, lanes to travel on; what runs ask of a catalog; desks of workers",
        (
            "sources.args sources.file sources.stdin observers.formats observers.progress lanes ledger engines.ledger "
            "engines.notes stores.desks stores.s3.wire"
        ),
    ),
    (
        "files that must be there whole, a partial one on disk, objects that are streamed, uploads whose id was lost",
        "sources.parquet stores.part stores.s3.reading stores.s3.strays",
    ),
    (
        "one file: fetched, and put where it stays; the ids in an object",
        "sources.objects adoption resolve transfer stores.partial observers.log observers.metrics stores.s3.objects",
    ),
    ("a few bytes of an object", "stores.s3.peek"),
    (
        "the local store; into, within and about the bucket; a source by its name",
        "sources.inputs stores.local stores.s3.multipart stores.s3.copy stores.s3.exchange stores.s3.shadow",
    ),
    (
        "what is on its way into the bucket, and what doctor tries; a file brought elsewhere",
        "copying stores.s3.intake stores.s3.probe",
    ),
    ("the bucket's sink", "stores.s3.sink"),
    ("the bucket", "stores.s3.store"),
    ("the destinations of a run", "places"),
    (
        "to every place the cheapest way; what is where, and whether it is sound; what is held",
        "checks delivery facts holdings stock",
    ),
    (
        "where the catalog is between runs; what a run's parts share; what a format is",
        "custody manifests.formats run",
    ),
    (
        "a prompt's files; what there is work for; all that runs work with; what workers say; a format each; decoding",
        (
            "decoding engines.messages gear intake manifests.bagit manifests.csv manifests.jsonl manifests.parquet "
            "manifests.sha256sums obtain outbox"
        ),
    ),
    ("one prompt; all manifests; what was left; tasks", "audit preview sweep tasks verification visit"),
    ("all prompts; what is flawed; down the history; another process", "engines.member pipeline repairs walk"),
    ("a night's work; a worker, and who deals out to several", "engines.processes engines.worker night"),
    ("a worker's process; one for callers that block", "engines.process engines.stage"),
    ("other people's pipelines; a worker and its cluster", "engines.embedded engines.ray.cluster engines.ray.stage"),
    ("what goes to a cluster, and what comes back", "engines.ray.engine engines.ray.inputs"),
    ("the public API", "client"),
    ("the same without asyncio", "blocking"),
    ("the gallery's data, links, and who makes previews", "gallery.links gallery.pages gallery.records gallery.worker"),
    ("the gallery's page and previews", "gallery.page gallery.previews"),
    ("what is shown of a prompt; where a gallery stands", "gallery.compose gallery.folder"),
    ("where else; all of it", "gallery.bucket gallery.build"),
    ("a service and a bucket to show it with", "demo.origin demo.bucket demo.swift"),
    ("the demo's script", "demo.show"),
    ("the process's own streams", "cli.streams"),
    ("the command line", "cli"),
    ("what commands share", "cli.common"),
    ("what commands that mirror, or take lists of ids, share", "cli.inputs cli.running"),
    (
        "a file a command",
        (
            "cli.cleanup cli.demo cli.doctor cli.export cli.fetch cli.forget cli.gallery cli.rebuild cli.schema "
            "cli.status cli.sync cli.verify"
        ),
    ),
    ("python -m", "__main__"),
)
"""From the ground up. A module imports from floors below its own only; a new one must be given its place here."""

PUBLIC = [
    *("Checked", "Event", "ExitCode", "Failure", "FetchOptions", "Manifest", "ManifestFile", "Mirror"),
    *("MirrorError", "MirrorStage", "Observer", "Progress", "PromptState", "Role", "Sample", "Settings"),
    "SyncOptions",
    *("__version__", "fetch", "fetch_one", "load_settings", "mirror_partition", "repair", "sync", "verify"),
]

LIBRARIES = {
    "aiohappyeyeballs": {"mirror.h1.pool", "mirror.session"},
    "aiohttp": {"mirror.session", "mirror.demo.origin"},
    "av": {"mirror.media.reading"},
    "boto3": {"mirror.stores.s3", "mirror.demo.bucket"},
    "botocore": {"mirror.stores.s3"},
    "click": {"mirror.cli"},
    "jinja2": {"mirror.gallery.page"},
    "PIL": {"mirror.gallery.worker", "mirror.media.reading"},
    "prometheus_client": {"mirror.observers.metrics"},
    "pyarrow": {"mirror.sources.parquet"},
    "ray": {"mirror.engines.ray.cluster"},
    "sqlite3": {"mirror.catalog"},
    "tenacity": {"mirror.retry"},
    "tqdm": {"mirror.observers.progress"},
    "zstandard": {"mirror.sources.compressed"},
}
"""Who may import what is not ours: foreign errors become ours where a library is used, and nowhere else."""


def module_of(path: Path) -> str:
    parts = [PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
FLOOR_OF = {
    "mirror" if name == "." else f"mirror.{name}": number
    for number, (_, listed) in enumerate(FLOORS)
    for name in listed.split()
}


def imported(nodes: list[ast.stmt]) -> Iterator[str]:
    """The modules that statements import, also inside of functions; not those for the type checker only."""
    waiting: list[ast.AST] = [*nodes]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting.extend(node.orelse)
        else:
            waiting.extend(ast.iter_child_nodes(node))


@functools.cache
def imports_of(module: str) -> set[str]:
    return set(imported(ast.parse(MODULES[module].read_text("utf-8")).body))


def inside(module: str, folder: str) -> bool:
    return module == folder or module.startswith(f"{folder}.")


def test_every_module_has_one_place() -> None:
    listed = [name for _, names in FLOORS for name in names.split()]
    assert sorted(listed) == sorted(set(listed))
    assert set(FLOOR_OF) == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_strictly_downward(module: str) -> None:
    ours = {name for name in imports_of(module) if inside(name, "mirror")}
    upward = {name: FLOOR_OF[name] for name in ours if FLOOR_OF[name] >= FLOOR_OF[module]}
    assert not upward, f"{module} stands on floor {FLOOR_OF[module]}"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is_for(module: str) -> None:
    assert ast.get_docstring(ast.parse(MODULES[module].read_text("utf-8")))


def test_only_the_command_line_and_the_demo_wire_observers() -> None:
    users = {module for module in MODULES if any(inside(name, "mirror.observers") for name in imports_of(module))}
    assert {user for user in users if not inside(user, "mirror.observers")}, "somebody does"
    assert [user for user in users if not user.startswith(("mirror.cli.", "mirror.demo.", "mirror.observers."))] == []


def test_only_the_command_line_knows_the_command_line() -> None:
    users = {module for module in MODULES if any(inside(name, "mirror.cli") for name in imports_of(module))}
    assert [user for user in users if not inside(user, "mirror.cli")] == ["mirror.__main__"]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_used_where_its_errors_become_ours(library: str) -> None:
    users = {module for module in MODULES if any(inside(name, library) for name in imports_of(module))}
    homes = {home for home in LIBRARIES[library] for user in users if inside(user, home)}
    assert homes == LIBRARIES[library], "no entry that is not needed"
    assert [user for user in users if not any(inside(user, home) for home in homes)] == []


@pytest.mark.parametrize("library", ["requests", "s3transfer"])
def test_nobody_imports(library: str) -> None:
    assert [module for module in MODULES if any(inside(name, library) for name in imports_of(module))] == []


def loaded(code: str) -> set[str]:
    """The modules that some code imports in a fresh interpreter."""
    script = f"import sys; before = set(sys.modules)\n{code}\nprint(*(set(sys.modules) - before), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    return set(done.stderr.split())


def test_the_help_carries_nothing_heavy_in() -> None:
    found = loaded("from mirror.cli import run\nassert run(['--help']) == 0")
    assert {"mirror.cli", "click"} <= found
    assert found & {"aiohttp", "boto3", "tqdm", "sqlite3", "msgspec", "tenacity", "asyncio"} == set()
    assert found & {"concurrent.futures", "email", "http", "json", "socket", "ssl", "subprocess", "tempfile"} == set()
    ours = {"mirror", "mirror.cli", "mirror.cli.streams", "mirror.errors"}
    assert {name for name in found if inside(name, "mirror")} == ours


def test_a_fetch_carries_in_what_it_needs_only(tmp_path: Path) -> None:
    found = loaded(
        "import os\n"
        "os.environ |= {'MIRROR_API_BASE_URL': 'http://127.0.0.1:9', 'MIRROR_API_TOKEN': 'none'}\n"
        "os.dup2(os.open(os.devnull, os.O_RDONLY), 0)\n"
        "from mirror.cli import run\n"
        f"assert run(['fetch', '-i', '-', '-q', '--root', {str(tmp_path)!r}]) == 0"
    )
    assert {"mirror.pipeline", "mirror.transfer", "mirror.catalog.schema"} <= found
    assert found & {"boto3", "botocore", "tqdm", "pyarrow", "zstandard", "prometheus_client", "aiofiles"} == set()
    others = {"checks", "hooks", "observers.metrics", "night", "repairs", "sources.parquet", "sources.tables"}
    others |= {"verification"}
    assert {name for name in found if inside(name, "mirror.stores.s3") or inside(name, "mirror.demo")} == set()
    assert found & {f"mirror.{name}" for name in others} == set()
    assert found & {"csv", "gzip"} == set()


def test_importing_the_package_carries_nothing_in() -> None:
    found = loaded("import mirror")
    assert [name for name in found if inside(name, "mirror")] == ["mirror"]
    assert found & {"msgspec", "aiohttp", "click", "asyncio"} == set()


def test_using_one_name_imports_its_home_only() -> None:
    found = loaded("from mirror import Settings")
    assert {name for name in found if inside(name, "mirror")} == {"mirror", "mirror.errors", "mirror.settings"}


def test_the_public_names_are_these() -> None:
    assert sorted(mirror.__all__) == sorted(PUBLIC)
    assert dir(mirror) == sorted(PUBLIC)
    with pytest.raises(AttributeError, match="no attribute 'Pipeline'"):
        _ = mirror.Pipeline  # type: ignore[attr-defined]  # it sees that, too


def test_no_public_name_is_a_module_too() -> None:
    """Whoever imported the module would find it where the name was."""
    assert [name for name in PUBLIC if f"mirror.{name}" in MODULES] == []


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "__version__"])
def test_a_public_name_resolves_and_is_documented(name: str) -> None:
    value = getattr(mirror, name)
    assert vars(value).get("__doc__") or value.__doc__
    assert value.__name__ == name


def test_type_checkers_see_the_same_names_in_the_same_homes() -> None:
    tree = ast.parse(MODULES["mirror"].read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    told = {
        alias.asname: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert told == {name: getattr(mirror, name).__module__ for name in PUBLIC if name != "__version__"}
    assert (PACKAGE / "py.typed").is_file()
