"""What the service may answer instead of a task: what mirror makes of it, and that the next run mends it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.api_table import LARGEST, Made, Names, Row, Table, good
from tests.drivers import DRIVERS
from tests.fault_table import Section
from tests.faults import Reply
from tests.origin import Answer, answer, task

IMPATIENT = {"api_timeout": 4}


def raw(body: bytes | str, status: int = 200, /, **headers: str) -> Made:
    """An answer as bytes."""
    named = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return lambda _names: Reply(status, named, body.encode() if isinstance(body, str) else body)


def sent(change: Callable[[bytes], bytes], **headers: str) -> Made:
    """The good answer, its text changed."""
    return lambda names: raw(change(json.dumps(good(names)).encode()), 200, **headers)(names)


def coded(code: int, data: Any = None) -> Made:
    return lambda _names: answer(data, code, "no")


def telling(**extra: Any) -> Made:
    """A done task with one picture, and with these fields."""
    return lambda names: answer(names.task("a.png", **extra))


def with_images(*images: Any) -> Made:
    """A done task with one picture, and with these entries beside it."""
    return lambda names: answer(
        {**(told := names.task("a.png")), "imageList": [*told["imageList"], *images]},
    )


def paced(**how: Any) -> Made:
    """The good answer, sent otherwise."""
    return lambda names: replace(Reply(200, {}, json.dumps(good(names)).encode()), **how)


HTML = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
DEEP = b"[" * 100_000

PASSING = [
    Row("code 510 once", [coded(510), good], "complete", None, 0, 2, ["a.png"]),
    Row("code 510 for ever", coded(510), "unresolved", "ApiUnavailable", asked=3),
    *(
        Row(
            f"status {status} once",
            [raw(HTML, status, Content_Type="text/html"), good],
            "complete",
            None,
            0,
            2,
            ["a.png"],
        )
        for status in (408, 500, 502, 503, 504)
    ),
    Row("status 429 with Retry-After", [raw(b"", 429, Retry_After="1"), good], "complete", None, 0, 2, ["a.png"]),
    Row(
        "status 502 with HTML for ever",
        raw(HTML, 502, Content_Type="text/html"),
        "unresolved",
        "ApiUnavailable",
        asked=3,
    ),
    Row("HTML with status 200, once", [raw(HTML, Content_Type="text/html"), good], "complete", None, 0, 2, ["a.png"]),
    Row("HTML with status 200, for ever", raw(HTML), "unresolved", "ApiUnavailable", asked=3),
    Row("an empty body", raw(b""), "unresolved", "ApiUnavailable", asked=3),
    Row(
        "JSON cut short, as its Content-Length says",
        sent(lambda text: text[:-20]),
        "unresolved",
        "ApiUnavailable",
        asked=3,
    ),
    Row("the connection closes in the middle", paced(cut=50, ending="close"), "unresolved", "ApiUnavailable", asked=3),
    Row(
        "the connection closes before an answer",
        paced(silent=True, ending="close"),
        "unresolved",
        "ApiUnavailable",
        asked=3,
        reconnects=True,
    ),
    Row(
        "the answer stalls", paced(cut=50, ending="stall"), "unresolved", "ApiUnavailable", asked=3, settings=IMPATIENT
    ),
    Row(
        "the answer drips, slower than `api.timeout`",
        paced(rate=20),
        "unresolved",
        "ApiUnavailable",
        asked=3,
        settings=IMPATIENT,
    ),
    Row(
        "never an answer",
        paced(silent=True, ending="stall"),
        "unresolved",
        "ApiUnavailable",
        asked=3,
        settings=IMPATIENT,
    ),
    Row("NaN in the JSON", raw('{"code": 200, "data": NaN}'), "unresolved", "ApiUnavailable", asked=3),
]

UNREADABLE = [
    Row("status 204", raw(b"", 204), "unresolved", "BadAnswer"),
    Row("status 404", raw(b"", 404), "unresolved", "BadAnswer"),
    Row("a code that nobody listed", coded(777), "unresolved", "BadAnswer"),
    Row("no code", raw('{"msg": "SUCCESS", "data": {}}'), "unresolved", "BadAnswer"),
    Row("`null`", raw("null"), "unresolved", "BadAnswer"),
    Row("an array", raw("[]"), "unresolved", "BadAnswer"),
    Row("data is null", coded(200), "unresolved", "BadAnswer"),
    Row("data is an array", coded(200, []), "unresolved", "BadAnswer"),
    Row("data is text", coded(200, "ok"), "unresolved", "BadAnswer"),
    Row("100,000 brackets", raw(DEEP), "unresolved", "BadAnswer"),
    Row(
        "100,000 brackets around nothing",
        raw(b'{"data":' + DEEP + DEEP.replace(b"[", b"]") + b"}"),
        "unresolved",
        "BadAnswer",
    ),
    Row(
        "an answer about another prompt",
        lambda names: answer({**names.task("a.png"), "promptId": "other"}),
        "unresolved",
        "BadAnswer",
    ),
    Row("larger than `api.max_answer`", telling(note="x" * LARGEST), "unresolved", "BadAnswer"),
    Row(
        "a redirect to another origin",
        lambda _names: Reply(302, {"Location": "http://127.0.0.1:1/x"}),
        "unresolved",
        "BadAnswer",
    ),
]

DENIED = [
    Row("code 800", coded(800), "unknown", "BadParameter"),
    Row("code 900", coded(900), "unknown", "NoData"),
    Row("a failed task", telling(state=2, reason="no face", imageList=[]), "failed"),
    Row("a queued task", telling(state=10, imageList=[]), "pending", None, 5),
    Row("a running task", telling(state=20, imageList=[]), "pending", None, 5),
    Row("a state that nobody listed", telling(state=99), "pending", None, 5, files=[]),
]

LENIENT = [
    Row("JSON as text/plain", sent(bytes, Content_Type="text/plain"), "complete", None, 0, files=["a.png"]),
    Row("JSON as text/html", sent(bytes, Content_Type="text/html"), "complete", None, 0, files=["a.png"]),
    Row(
        "a byte order mark before the JSON",
        sent(lambda text: b"\xef\xbb\xbf" + text),
        "complete",
        None,
        0,
        files=["a.png"],
    ),
    Row(
        "a key that comes twice",
        sent(lambda text: text.replace(b'"code": 200', b'"code": 510, "code": 200')),
        "complete",
        None,
        0,
        files=["a.png"],
        note="the last one counts",
    ),
    Row("integers as text", telling(state="30", taskId="443"), "complete", None, 0, files=["a.png"]),
    Row("`taskList: null`", telling(taskList=None), "complete", None, 0, files=["a.png"]),
    Row("`imageList: null`", telling(imageList=None), "complete", None, 0, files=[]),
    Row(
        "images that are null, or name nothing",
        with_images(None, {}, {"origin": None, "path": ""}, {"origin": "  "}),
        "complete",
        None,
        0,
        files=["a.png"],
    ),
    Row(
        "the same URL many times",
        lambda names: answer(names.task(*["a.png"] * 50)),
        "complete",
        None,
        0,
        files=["a.png"],
    ),
]

TYPES = [
    Row("a URL that is a number", with_images({"origin": 5}), "partial", "BadAnswer", files=["a.png"]),
    Row("a URL that is an array", with_images({"origin": ["x"]}), "partial", "BadAnswer", files=["a.png"]),
    Row("an image that is a number", with_images(7), "partial", "BadAnswer", files=["a.png"]),
    Row("a URL that is no web address", with_images({"origin": "a.png"}), "partial", "Refused", files=["a.png"]),
    Row("images that are an object", telling(imageList={}), "partial", "BadAnswer"),
    Row("children that are a number", telling(taskList=5), "partial", "BadAnswer", files=["a.png"]),
    Row("a state that is text", telling(state="done"), "pending", "BadAnswer", files=[]),
]


def family(*children: Callable[[Names], Mapping[str, Any]]) -> Made:
    """A done task of one picture with children."""
    return lambda names: answer(names.task("a.png", children=[child(names) for child in children]))


def many(names: Names) -> Answer:
    children = [task(f"{names.prompt}-{n}", images=[(None, names.url("a.png"))]) for n in range(5000)]
    return answer(names.task("a.png", children=children))


FAMILIES = [
    Row("5,000 children", many, "complete", None, 0, files=["a.png"]),
    Row(
        "a child that names its parent",
        family(lambda n: task(n.prompt, images=[])),
        "complete",
        None,
        0,
        files=["a.png"],
    ),
    Row(
        "a child that cannot be asked about",
        family(lambda n: task("nobody", images=[])),
        "partial",
        "NoData",
        files=["a.png"],
        asked=1,
    ),
    Row("a child that is still running", family(lambda n: task("running", 20)), "pending", None, 5, files=["a.png"]),
    Row(
        "a child that failed",
        family(lambda n: task("failed", 2, reason="no face")),
        "complete",
        None,
        0,
        files=["a.png"],
    ),
]

FATAL = [
    Row("status 401", raw(b"", 401), None, code=4),
    Row("code 401", coded(401), None, code=4),
    Row("status 403 before anything succeeded", raw(b"", 403), None, code=4),
    Row("code 401 in the middle, about a child", family(lambda n: task(n.refused(401), images=[])), None, code=4),
]
FORBIDDEN = [
    Row(
        "code 403 in the middle, about a child",
        family(lambda n: task(n.refused(403), images=[])),
        "partial",
        "BadAnswer",
        files=["a.png"],
    ),
]


SECTIONS = [
    Section("No answer now", PASSING, "Worth asking again: three times here, five by default."),
    Section("No answer that can be used", UNREADABLE, "JSON, but not what was asked for. Asking again would not help."),
    Section("Wrong types", TYPES, "What can be used is, and the prompt is not called complete."),
    Section("Odd, and accepted", LENIENT),
    Section("States", DENIED),
    Section("Families", FAMILIES),
    Section("The token is rejected", [*FATAL, *FORBIDDEN], "Nobody is asked again with a token that was rejected."),
]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return Table(SECTIONS, tmp_path_factory.mktemp("api"))


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("row", [row for section in SECTIONS for row in section.rows], ids=str)
def test_fault(row: Row, driver: str, table: Table) -> None:
    table.check(row, driver)
