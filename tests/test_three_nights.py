"""Three nights of ``mirror sync`` from a timer, from beginning to end, with every request counted at the origin."""

from __future__ import annotations

import time
from typing import Any

from tests.conftest import Archive
from tests.helpers import done_prompt, picture, sha256
from tests.origin import Origin, answer, task

HOUR = 3600
NIGHT = 24 * HOUR


class Service:
    """The service over three nights: what its history lists, newest first, and what it was asked for."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.rows: list[dict[str, Any]] = []
        self.began = int(time.time()) - 3 * NIGHT

    def lists(self, prompt_id: str, hours: float, state: int = 30) -> None:
        """A prompt that was made so many hours after the beginning comes to stand at the top of the history."""
        self.rows.insert(0, {"promptId": prompt_id, "state": state, "createdAt": int(self.began + hours * HOUR)})
        self.origin.history(self.rows, most=3)

    def asked(self) -> tuple[int, list[str], list[str]]:
        """Pages of the history, prompts and media files that were asked for since this was called last."""
        requests = self.origin.requests
        self.origin.clear()
        pages = sum(request.path == "/newImageHistory" for request in requests)
        prompts = [request.query.removeprefix("promptId=") for request in requests if request.path == "/getTaskInfo"]
        return pages, sorted(prompts), sorted(request.path for request in requests if not request.is_api)


def test_three_nights(archive: Archive, origin: Origin) -> None:
    service = Service(origin)

    # Night one: two are done, one still runs, one failed upstream.
    bodies = {f"first/{name}": body for name, body in done_prompt(origin, "first", "a.png", "b.png").items()}
    bodies |= {f"kept/{name}": body for name, body in done_prompt(origin, "kept", "c.png").items()}
    origin.prompt("slow", answer(task("slow", 20)))
    origin.prompt("failed", answer(task("failed", 2, reason="no face was found")))
    for hours, (prompt_id, state) in enumerate([("first", 30), ("failed", 2), ("kept", 30), ("slow", 20)]):
        service.lists(prompt_id, hours, state)
    night = archive.run("sync")
    assert night.code == 5, night.err
    assert night.summary["prompts"] == {"pending": 1, "failed": 1, "complete": 2}
    assert "no face was found" in night.err
    pages, prompts, media = service.asked()
    assert pages == 4, "three rows, one row, the end, and what lies behind it"
    assert prompts == ["failed", "first", "kept", "slow"]
    assert media == ["/first/a.png", "/first/b.png", "/kept/c.png"]

    # Night two: what ran has ended, and there is a new one. What is complete and what failed cost nothing.
    url, body = picture(origin, "/slow/d.png")
    origin.prompt("slow", answer(task("slow", images=[(None, url)])))
    bodies |= {"slow/d.png": body, "second/e.png": done_prompt(origin, "second", "e.png")["e.png"]}
    service.lists("second", 25)
    night = archive.run("sync")
    assert night.code == 0, night.err
    assert night.summary["prompts"] == {"complete": 2}
    pages, prompts, media = service.asked()
    assert (pages, prompts) == (3, ["second", "slow"]), "all that is listed lies within the overlap"
    assert media == ["/second/e.png", "/slow/d.png"]

    # Between the nights a disk flips a bit. Only that file is fetched again, and only its own bytes are taken.
    damaged = archive.root / "first" / "a.png"
    damaged.write_bytes(bytes([bodies["first/a.png"][0] ^ 1]) + bodies["first/a.png"][1:])
    found = archive.run("verify")
    assert found.code == 3
    assert "first/a.png\tdamaged" in found.out
    assert service.asked() == (0, [], [])
    assert archive.run("verify", "--repair").code == 0
    assert service.asked() == (0, ["first"], ["/first/a.png"])
    assert archive.run("verify").code == 0

    # Night three: the service has deleted one, from its history too. The archive keeps it, and nobody asks for it.
    service.rows = [row for row in service.rows if row["promptId"] != "kept"]
    origin.prompt("kept", answer(None, 900, "no data"))
    service.lists("third", 60)
    bodies |= {"third/f.png": done_prompt(origin, "third", "f.png")["f.png"]}
    night = archive.run("sync")
    assert night.code == 0, night.err
    assert night.summary["prompts"] == {"complete": 1}
    pages, prompts, media = service.asked()
    assert pages == 3, "third, second, slow; failed, first, which lie below the overlap of a day"
    assert (prompts, media) == (["third"], ["/third/f.png"])

    # A fourth with nothing to do asks for the history alone.
    night = archive.run("sync")
    assert (night.code, night.summary["prompts"]) == (0, {})
    assert service.asked()[1:] == ([], [])

    assert {path: data for path, data in archive.files().items() if not path.endswith("manifest.json")} == bodies
    for prompt_id in ("first", "kept", "slow", "second", "third"):
        manifest = archive.manifest(prompt_id)
        assert manifest["state"] == "complete"
        assert {f"{prompt_id}/{each['path']}": each["sha256"] for each in manifest["files"]} == {
            path: sha256(data) for path, data in bodies.items() if path.startswith(f"{prompt_id}/")
        }
    told = archive.run("status", "--json").lines[0]
    assert {state: row["prompts"] for state, row in told.items() if state != "sync"} == {"complete": 5, "failed": 1}
    assert archive.run("status", "--failed").out == "failed\t# failed: TaskFailed: no face was found\n"
