"""The command line as scripts see it: exit codes, flags, the lesser commands, and secrets that appear nowhere."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest

from mirror import cli
from mirror.errors import Unauthorized
from tests import faults, media
from tests.conftest import Archive
from tests.helpers import asked, done_prompt, journaled, large_prompt, mirrored, picture, running, tree
from tests.origin import Answer, Origin, Reply, answer, task

# Exit codes


def test_several_reasons_make_one_exit_code(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "done", "a.png")
    origin.prompt("pending", answer(task("pending", 20)))

    assert mirrored(archive, "done").code == 0
    assert archive.run("fetch", "done", "pending").code == 5
    assert archive.run("fetch", "done", "pending", "unknown").code == 3


def test_a_rejected_token_comes_before_what_failed(origin: Origin, archive: Archive) -> None:
    gone = origin.url + "/gone.png"
    origin.prompt("broken", answer(task("broken", images=[(None, gone)])))

    def once_the_other_failed(_: int) -> Answer:
        origin.wait_for(lambda: any(request.ended for request in origin.media_requests))
        return answer(None, 401, "who are you?")

    origin.prompt("p", once_the_other_failed)

    done = archive.run("fetch", "broken", "p")

    assert (done.code, done.summary["exit_code"]) == (4, 4)
    assert "the API rejects the token (code 401, 'who are you?'): check api.token" in done.err
    assert "rejects the token" in done.summary["fatal"]


@pytest.mark.parametrize("refusal", [Reply(401), Reply(403), answer(None, 403, "no")], ids=["401", "403", "code 403"])
def test_a_refusal_at_the_start_stops_the_run(origin: Origin, archive: Archive, refusal: Answer) -> None:
    origin.prompt("p", refusal)

    with pytest.raises(Unauthorized, match="the API rejects the token"):
        mirrored(archive, "p")

    assert archive.files() == {}


def test_a_403_after_a_success_concerns_its_prompt_only(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "good", "a.png")

    def once_the_other_was_answered(_: int) -> Answer:
        origin.wait_for(lambda: len(origin.media_requests) == 1)
        return Reply(403)

    origin.prompt("p", once_the_other_was_answered)

    ran = mirrored(archive, "good", "p")

    assert (ran.states, ran.code) == ({"good": "complete", "p": "unresolved"}, 3)


def test_a_root_in_use_is_left_alone(origin: Origin, archive: Archive) -> None:
    large_prompt(origin, "p", media.png(), faults.hold_after(10))

    with running(archive, "fetch", "p", environ={"MIRROR_TRANSFER_STALL_TIMEOUT": "10m"}) as holder:
        origin.wait_for(lambda: origin.count("/p/") == 1)
        for command in (["fetch", "q"], ["rebuild"]):
            done = archive.run(*command)
            assert (done.code, f"(pid {holder.pid} " in done.err) == (4, True), done.err
        assert archive.run("fetch", "p", "--dry-run").code == 0
        origin.release("/p/large.mp4")
        assert holder.wait(120) == 0

    assert asked(origin) == ["p", "p"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[transfer]\nconcurency = 4\n", ["[transfer] unknown key concurency", "concurrency"]),
        ("[transfer]\nconcurrency = 'many'\n", ["[transfer] concurrency", "expected `int`"]),
        ("[api]\ntimeout = '3 parsecs'\n", ["[api] timeout", "expected a duration"]),
        ("[nonsense]\n", ["unknown section [nonsense]"]),
        ("[api\n", ["is not TOML"]),
        (None, ["cannot be read"]),
    ],
)
def test_a_wrong_configuration_names_file_and_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: str | None, words: list[str]
) -> None:
    path = tmp_path / "my.toml"
    if config is not None:
        path.write_text(config)

    code = cli.run(["--config", str(path), "fetch", "p"])

    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert all(word in err for word in [str(path), *words]), err
    assert set(tmp_path.iterdir()) <= {path}


@pytest.mark.parametrize(
    "arguments",
    [
        ["fetch"],
        ["fetch", "p", "--nonsense"],
        ["fetch", "p", "--only", "sound"],
        ["fetch", "p", "--wait", "soon"],
        ["fetch", "p", "--concurrency", "-1"],
        ["nonsense"],
        ["schema", "nonsense"],
        ["forget"],
    ],
    ids=" ".join,
)
def test_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code = cli.run(arguments)

    out, err = capsys.readouterr()
    assert (code, out, err.splitlines()[0][:6], list(tmp_path.iterdir())) == (2, "", "Usage:", [])


@pytest.mark.parametrize("arguments", [["status", "--failed"], ["forget", "p"], ["fetch", "-i", "missing.txt"]])
def test_what_is_not_there_is_wrong_usage(origin: Origin, archive: Archive, arguments: list[str]) -> None:
    done = archive.run(*arguments)

    assert (done.code, done.out, origin.requests) == (2, "", [])
    assert ("catalog.sqlite: there is no catalog" in done.err) or ("missing.txt: cannot be read" in done.err)


def test_a_summary_that_cannot_be_written_is_found_before_anything_starts(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")

    with running(archive, "fetch", "p", "--summary", "no/such/folder/summary.json") as process:
        _, err = process.communicate(timeout=120)

    assert (process.returncode, origin.requests) == (2, [])
    assert "--summary no/such/folder/summary.json" in err


# Flags of fetch


def test_a_dry_run_says_what_would_be_fetched_and_changes_nothing(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png", "b.png")

    fresh = archive.run("fetch", "p", "--dry-run")

    assert (fresh.code, origin.media_requests) == (0, [])
    assert fresh.out == "".join(f"p\t{name}\t{origin.url}/p/{name}\n" for name in ("a.png", "b.png"))
    assert not archive.root.exists()

    mirrored(archive, "p")
    (archive.root / "p" / "a.png").unlink()
    before = tree(archive.root)
    again = archive.run("fetch", "p", "unknown", "--dry-run", "--json")
    assert again.code == 3
    assert {line["prompt_id"]: line["state"] for line in again.lines} == {"p": "partial", "unknown": "unknown"}
    assert tree(archive.root) == before


def test_the_summary_counts(origin: Origin, archive: Archive) -> None:
    bodies = done_prompt(origin, "p", "a.png", "b.png")
    picture(origin, "/p/b.png", fault=[faults.status(503, retry_after=0)])
    done_prompt(origin, "q", "c.png")
    origin.add("/q/c.png", b"", fault=faults.status(404))
    size = sum(map(len, bodies.values()))

    first = archive.run("fetch", "p", "q", "unknown")
    expected = {
        "prompts": {"partial": 1, "complete": 1, "unknown": 1},
        "files": 2,
        "files_failed": 1,
        "bytes_downloaded": size,
        "bytes_reused": 0,
        "requests": 7,
        "retries": {"Unavailable": 1},
        "exit_code": 3,
        "fatal": None,
    }
    assert {key: first.summary[key] for key in expected} == expected
    assert "3: 1 partial, 1 complete, 1 unknown" in first.err

    second = archive.run("fetch", "p")
    assert {key: second.summary[key] for key in ("files", "bytes_reused", "requests")} == {
        "files": 0,
        "bytes_reused": size,
        "requests": 0,
    }


def test_quiet_verbose_and_json_logs(origin: Origin, archive: Archive) -> None:
    for prompt_id in ("p", "q"):
        done_prompt(origin, prompt_id, "a.png")

    quiet = archive.run("fetch", "p", "-q")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")

    verbose = archive.run("fetch", "q", "-v")
    assert "stored a.png" in verbose.err

    logged = archive.run("fetch", "unknown", "-v", "--log-format", "json")
    records = [json.loads(line) for line in logged.err.splitlines()]
    assert {"time", "level", "message"} <= records[0].keys()
    assert {"prompt_id": "unknown", "level": "warning", "error": "NoData"}.items() <= {
        key: value for record in records if record.get("error") for key, value in record.items()
    }.items()


def test_concurrency_and_rate_are_accepted(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png", "b.png")

    assert archive.run("fetch", "p", "--concurrency", "1", "--limit-rate", "10M", "--no-progress").code == 0

    times = [(request.began, request.ended or 0) for request in origin.media_requests]
    assert times[0][1] <= times[1][0]


def test_max_time_stops_cleanly_and_the_next_run_completes(origin: Origin, archive: Archive) -> None:
    body = media.mp4(3 << 20)
    large_prompt(origin, "p", body, faults.hold_after(5 << 19))

    stopped = archive.run("fetch", "p", "--max-time", "3s")

    assert (stopped.code, stopped.summary["unfinished"], stopped.summary["prompts"]) == (3, 1, {})
    held = journaled(archive)
    origin.add("/p/large.mp4", body)
    origin.clear()
    assert archive.run("fetch", "p").code == 0
    assert [request.headers.get("range") for request in origin.media_requests] == [f"bytes={held}-" if held else None]
    assert archive.files()["p/large.mp4"] == body


def test_max_time_before_all_ids_were_read_is_no_success(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")

    with running(archive, "fetch", "-i", "-", "--max-time", "800ms", stdin=-1) as process:
        assert process.stdin
        process.stdin.write("p\n")
        process.stdin.flush()
        assert process.wait(120) == 3


def test_ids_come_from_arguments_files_and_stdin(origin: Origin, archive: Archive, tmp_path: Path) -> None:
    for prompt_id in ("a", "b", "c", "d"):
        done_prompt(origin, prompt_id, "1.png")
    (tmp_path / "ids.txt").write_text("# tonight\nb\n\n  c  # the cat\r\na\n")

    done = archive.run("fetch", "a", "-i", "ids.txt", "-i", "-", "--json", stdin="d\nb")

    assert (done.code, sorted(line["prompt_id"] for line in done.lines)) == (0, ["a", "b", "c", "d"])
    assert asked(origin) == ["a", "b", "c", "d"]


# The other commands


def test_status(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png", "b.png")
    done_prompt(origin, "q", "c.png", "d.png")
    gone, _ = picture(origin, "/q/d.png", fault=faults.status(410, times=2))
    mirrored(archive, "p", "q", "nobody")
    origin.clear()

    table = archive.run("status")
    assert table.out.splitlines()[-1].startswith("last tried: 20")
    assert (table.code, [line.split()[:3] for line in table.out.splitlines()[:-1]]) == (
        0,
        [
            ["state", "prompts", "files"],
            ["complete", "1", "2"],
            ["partial", "1", "1"],
            ["unknown", "1", "0"],
            ["all", "3", "3"],
        ],
    )
    counts = archive.run("status", "--json").lines[0]
    told = counts.pop("sync")
    assert (told["listed"], told["given_up"], told["watermark"]) == (0, 0, None)
    assert {state: row["files"] for state, row in counts.items()} == {"complete": 2, "partial": 1, "unknown": 0}

    ids = archive.run("status", "p", "q", "stranger")
    assert ids.code == 3
    assert [line.split()[:2] for line in ids.out.splitlines() if line[0] != " "] == [
        ["p", "complete,"],
        ["q", "partial,"],
        ["stranger", "not"],
    ]
    assert f"  Gone: the origin has no such file (HTTP 410): {gone}" in ids.out.splitlines()
    told = archive.run("status", "q", "--json").lines[0]
    assert {key: told[key] for key in ("prompt_id", "state", "files", "tries")} == {
        "prompt_id": "q",
        "state": "partial",
        "files": 1,
        "tries": 1,
    }
    assert origin.requests == []


def test_what_failed_can_be_piped_back(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")
    done_prompt(origin, "q", "b.png")
    picture(origin, "/q/b.png", fault=faults.status(404))
    mirrored(archive, "p", "q", "nobody")
    origin.clear()

    failed = archive.run("status", "--failed")
    ids = "".join(line.partition("\t")[0] + "\n" for line in failed.out.splitlines())
    again = archive.run("fetch", "-i", "-", stdin=ids)

    assert (failed.code, sorted(ids.split())) == (0, ["nobody", "q"])
    assert (again.code, asked(origin)) == (3, ["nobody", "q"])
    assert archive.manifest("q")["state"] == "complete"


def test_forget(origin: Origin, archive: Archive) -> None:
    for prompt_id in ("p", "q", "r"):
        done_prompt(origin, prompt_id, "a.png")
    mirrored(archive, "p", "q", "r")
    (archive.root / "q" / "notes.txt").write_text("the user's")
    origin.clear()

    kept = archive.run("forget", "p")
    assert (kept.code, archive.run("status", "p").code) == (0, 3)
    assert archive.files().keys() >= {"p/a.png", "p/manifest.json"}

    deleted = archive.run("forget", "--delete", "q", "r", "stranger")
    assert (deleted.code, "notes.txt" in deleted.out, "stranger: not in the catalog" in deleted.err) == (3, True, True)
    assert archive.files().keys() == {"p/a.png", "p/manifest.json", "q/notes.txt"}
    assert not (archive.root / "r").exists()

    # What stands on disk with a manifest is taken up again; what was deleted is fetched.
    assert mirrored(archive, "p", "q").code == 0
    assert asked(origin) == ["q"]
    assert archive.files().keys() == {"p/a.png", "p/manifest.json", "q/a.png", "q/manifest.json", "q/notes.txt"}


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "garbled"])
def test_rebuild(origin: Origin, archive: Archive, lost: bool) -> None:
    done_prompt(origin, "p", "a.png")
    done_prompt(origin, "a/b", "b.png")
    origin.prompt("pending", answer(task("pending", 20)))
    mirrored(archive, "p", "a/b", "pending")
    (archive.root / "stranger").mkdir()
    before = archive.files()
    catalog = archive.root / ".mirror" / "catalog.sqlite"
    if lost:
        catalog.unlink()
    else:
        catalog.write_bytes(media.blob(catalog.stat().st_size))
        for command in (["fetch", "p"], ["status"]):
            done = archive.run(*command)
            assert (done.code, "`mirror rebuild`" in done.err, "Traceback" in done.err) == (4, True, False), done.err
    origin.clear()

    rebuilt = archive.run("rebuild")

    assert (rebuilt.code, "3 prompts came back" in rebuilt.out) == (3, True)
    assert "stranger: no manifest" in rebuilt.err
    assert {line["state"] for line in archive.run("status", "p", "a/b", "pending", "--json").lines} == {
        "complete",
        "pending",
    }
    assert mirrored(archive, "p", "a/b").code == 0
    assert origin.requests == []
    assert archive.files() == before
    assert mirrored(archive, "pending").code == 5


def test_schemas_describe_what_is_written(origin: Origin, archive: Archive) -> None:
    done_prompt(origin, "p", "a.png")
    url = origin.url + "/gone.png"
    origin.prompt("q", answer(task("q", images=[(None, url)])))
    done = archive.run("fetch", "p", "q", "unknown", "--json")

    schemas = {name: json.loads(archive.run("schema", name).out) for name in ("manifest", "summary", "config")}

    for manifest in [*done.lines, archive.manifest("p"), archive.manifest("q")]:
        jsonschema.validate(manifest, schemas["manifest"])
    jsonschema.validate(done.summary, schemas["summary"])
    jsonschema.validate({"api": {"timeout": "30s"}, "transfer": {"concurrency": 4}}, schemas["config"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"api": {"nonsense": 1}}, schemas["config"])


def test_doctor(origin: Origin, archive: Archive) -> None:
    def checked(**environ: str) -> tuple[int, dict[str, str]]:
        done = archive.run("doctor", environ=environ)
        assert "Traceback" not in done.err
        assert archive.origin.token not in done.out + done.err
        return done.code, {line.split()[1]: line.split()[0] for line in done.out.splitlines()}

    healthy = {"config": "ok", "token": "ok", "disk": "ok", "catalog": "ok", "limits": "ok", "api": "ok"}
    assert checked() == (0, healthy)
    mirrored(archive, "p")
    assert checked(MIRROR_API_TOKEN="wrong") == (4, {**healthy, "api": "fail"})
    failing = {"MIRROR_API_BASE_URL": "http://127.0.0.1:9", "MIRROR_TRANSFER_MIN_FREE_SPACE": "9999T"}
    assert checked(**failing) == (4, {**healthy, "api": "fail", "disk": "fail"})
    assert checked(MIRROR_API_TIMEOUT="soon") == (2, {"config": "fail"})
    (archive.root / ".mirror" / "catalog.sqlite").write_bytes(b"garbled" * 1000)
    code, found = checked(MIRROR_API_BASE_URL="")
    assert (code, found["token"], "fail" in (found["disk"], found.get("catalog"))) == (2, "fail", True)


def test_secrets_appear_nowhere(origin: Origin, archive: Archive) -> None:
    def signed(number: int, url: str) -> str:
        return f"{url}?X-Amz-Credential=SECRETKEY{number}&v=2&X-Amz-Signature=SECRETSIGNATURE{number}"

    large = origin.add("/large.mp4", media.mp4(3 << 20), fault=faults.hold_after(5 << 19))
    names = ["gone.png", "busy.png", "moved.png", "page.png", "refused.png"]
    picture(origin, "/busy.png", fault=faults.status(503, retry_after=0))
    picture(origin, "/moved.png", fault=faults.redirect(signed(3, "/nowhere.png"), times=faults.FOREVER))
    picture(origin, "/page.png", fault=faults.html_page(times=faults.FOREVER))
    picture(origin, "/refused.png", fault=faults.status(403, times=faults.FOREVER))

    def about_p(number: int) -> Answer:
        urls = [large, *(f"{origin.url}/{name}" for name in names), "ftp://host/a.png"]
        return answer(task("p", images=[(None, signed(number, url)) for url in urls]), msg=f"hello {origin.token}")

    origin.prompt("p", about_p)
    told = f"{origin.token} cannot read {signed(4, large)}"
    origin.prompt("failed", answer(task("failed", 2, reason=told)))
    origin.prompt("denied", answer(None, 900, told))
    origin.prompt("odd", answer(None, 777, told))
    ids = ["p", "failed", "denied", "odd"]

    shown: list[str | bytes] = []
    with running(archive, "fetch", *ids, "-v", "--json") as process:
        origin.wait_for(lambda: journaled(archive) >= 2 << 20)
        process.kill()
        shown += process.communicate()
    shown += [content or b"" for content in tree(archive.root.parent).values()]
    done = archive.run("fetch", *ids, "-v", "--json")
    shown += [done.out, done.err, archive.run("fetch", *ids, "--dry-run").out]
    for command in (["status", *ids], ["status", *ids, "--json"], ["status", "--failed"]):
        shown.append(archive.run(*command).out)
    shown += [content or b"" for content in tree(archive.root.parent).values()]

    assert (done.code, archive.manifest("p")["state"]) == (3, "partial")
    assert [file["path"] for file in archive.manifest("p")["files"]] == ["large.mp4", "busy.png"]
    assert signed(1, large).partition("?")[2] in {request.query for request in origin.media_requests}
    texts = [text if isinstance(text, str) else text.decode("latin-1") for text in shown]
    for secret in (origin.token, "SECRET"):
        leaks = [text[max(0, text.index(secret) - 60) :][:100] for text in texts if secret in text]
        assert leaks == []
