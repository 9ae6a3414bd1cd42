"""The API's answers: lenient where the page leaves room, and whatever comes, nothing but the two errors for it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mirror.answers import MAX_DEPTH, MAX_SIGNS, read_answer, read_envelope, read_task
from mirror.errors import ApiUnavailable, BadAnswer
from mirror.models import Image, PromptId, Task, TaskState
from tests.origin import answer, task
from tests.properties import examples

ASKED = PromptId("ef8ec19d6670c018814358a21a910090")
URL = "https://media.example/a.mp4"
API = "https://api.example/getTaskInfo"
modest = examples(150)


def read(data: Any, **envelope: Any) -> Task:
    """A whole answer, read as the client reads it."""
    return read_answer(read_envelope(json.dumps(answer(data, **envelope)).encode()), ASKED, API).task


def test_a_documented_task_is_read_whole() -> None:
    child = task("0fdd439fe1a94c8aa3ddaca3cdf50fe5", images=[(None, URL)], taskId=1044, state=2, reason="no face found")
    found = read(task(ASKED, images=[(f"{URL}.png", URL)], children=[child], taskId=1043))
    image = Image(id=10430, task_id=1043, path=f"{URL}.png", origin=URL)
    assert found == Task(
        prompt_id=ASKED,
        task_id=1043,
        task_type=7,
        state=TaskState.DONE,
        thumbnail=f"{URL}.png",
        images=(image,),
        children=(
            Task(
                prompt_id=PromptId("0fdd439fe1a94c8aa3ddaca3cdf50fe5"),
                task_id=1044,
                task_type=7,
                state=TaskState.FAILED,
                reason="no face found",
                images=(Image(id=10440, task_id=1044, origin=URL),),
            ),
        ),
    )


def test_the_answer_is_kept_as_it_was() -> None:
    data = {"promptId": ASKED.upper(), "taskId": "443", "new": {"field": [1.5, None]}}
    envelope = read_envelope(json.dumps({"code": "200", "msg": "SUCCESS", "data": data}).encode())
    found = read_answer(envelope, ASKED, API)
    assert (found.url, found.code, found.msg, found.data) == (API, 200, "SUCCESS", data)
    assert found.task.prompt_id == ASKED.upper()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (443, 443),
        ("443", 443),
        (" 443 ", 443),
        (443.0, 443),
        (-1, -1),
        ("-1", -1),
        (0, 0),
        (2**63 - 1, 2**63 - 1),
        (2**63, None),
        (str(2**63), None),
        ("9" * 5_000, None),
        (1e300, None),
        (443.5, None),
        ("443.0", None),
        ("", None),
        ("-", None),
        ("--5", None),
        ("5-", None),
        ("+5", None),
        ("1_000", None),
        ("0x1", None),
        ("٤٤٣", None),
        ("²", None),
        (True, None),
        (None, None),
        ([443], None),
        ({}, None),
    ],
)
def test_integers_are_read_from_text_too(value: Any, expected: int | None) -> None:
    found = read_task({"taskId": value, "taskType": value, "imageList": [{"id": value, "taskId": value}]}, ASKED)
    assert (found.task_id, found.task_type, found.images[0].id, found.images[0].task_id) == (expected,) * 4
    assert found.flaws == (), "an id that cannot be read is none, and keeps no file from being mirrored"
    assert read_envelope(json.dumps({"code": value}).encode()).code == expected


@pytest.mark.parametrize(
    ("fields", "state", "flaws"),
    [
        ({"state": 10}, TaskState.QUEUED, 0),
        ({"state": 20}, TaskState.RUNNING, 0),
        ({"state": 30}, TaskState.DONE, 0),
        ({"state": 2}, TaskState.FAILED, 0),
        ({"state": "30"}, TaskState.DONE, 0),
        ({"state": 30.0}, TaskState.DONE, 0),
        ({"state": 99}, TaskState.OTHER, 0),
        ({"state": -1}, TaskState.OTHER, 0),
        ({"state": None}, TaskState.OTHER, 0),
        ({}, TaskState.OTHER, 0),
        ({"imageList": [{"origin": URL}]}, TaskState.DONE, 0),
        ({"imageList": [{"origin": ""}]}, TaskState.OTHER, 0),
        ({"state": "done"}, TaskState.OTHER, 1),
        ({"state": "--5"}, TaskState.OTHER, 1),
        ({"state": True}, TaskState.OTHER, 1),
        ({"state": []}, TaskState.OTHER, 1),
        ({"state": 10**30}, TaskState.OTHER, 1),
    ],
)
def test_states(fields: dict[str, Any], state: TaskState, flaws: int) -> None:
    found = read_task(fields, ASKED)
    assert (found.state, len(found.flaws)) == (state, flaws)
    assert found.state.ended is (state in (TaskState.DONE, TaskState.FAILED))


@pytest.mark.parametrize("field", ["taskId", "taskType", "thumbFileUrl", "state", "reason", "imageList", "taskList"])
@pytest.mark.parametrize("how", ["missing", "null", "empty"])
def test_what_is_missing_is_no_flaw(field: str, how: str) -> None:
    data = task(ASKED, images=[(None, URL)], children=[])
    if how == "missing":
        del data[field]
    else:
        data[field] = None if how == "null" or field in ("state", "taskId", "taskType") else type(data[field])()
    found = read(data)
    assert found.flaws == ()
    assert found.state is TaskState.DONE
    assert [image.origin for image in found.images] == ([] if field == "imageList" else [URL])


def test_a_task_type_nobody_listed_passes_through() -> None:
    assert [read(task(ASKED, taskType=number)).task_type for number in (3, 7, 123)] == [3, 7, 123]


@pytest.mark.parametrize(
    ("fields", "flaw"),
    [
        ({"state": {}}, "state: expected an integer, got an object"),
        ({"imageList": {}}, "imageList: expected an array, got an object"),
        ({"imageList": "x"}, "imageList: expected an array, got a string"),
        ({"imageList": [1]}, "imageList: expected objects in the array"),
        ({"taskList": 5}, "taskList: expected an array, got a number"),
        ({"taskList": [[]]}, "taskList: expected objects in the array"),
        ({"thumbFileUrl": 5}, "thumbFileUrl: expected a URL, got a number"),
        ({"thumbFileUrl": [URL]}, "thumbFileUrl: expected a URL, got an array"),
        ({"imageList": [{"path": True}]}, "path: expected a URL, got a boolean"),
        ({"imageList": [{"origin": {}}]}, "origin: expected a URL, got an object"),
    ],
)
def test_a_wrong_type_is_a_flaw_and_the_rest_is_used(fields: dict[str, Any], flaw: str) -> None:
    found = read(task(ASKED, images=[(None, URL)], children=[task("c", images=[(None, URL)])]) | fields)
    assert found.flaws == (flaw,)
    assert found.prompt_id == ASKED
    assert found.images or "imageList" in fields
    assert found.children or "taskList" in fields


def test_null_among_the_images_and_children_is_nothing() -> None:
    found = read({"imageList": [None, {"origin": URL}], "taskList": [None]})
    assert (len(found.images), found.children, found.flaws) == (1, (), ())


@pytest.mark.parametrize(("url", "expected"), [(f" {URL}\n", URL), ("", None), ("  ", None), (None, None)])
def test_urls_are_trimmed(url: str | None, expected: str | None) -> None:
    found = read({"thumbFileUrl": url, "imageList": [{"path": url, "origin": url}]})
    assert (found.thumbnail, found.images[0].path, found.images[0].origin) == (expected,) * 3


def test_a_child_without_an_id_has_none() -> None:
    found = read({"taskList": [{"promptId": None}, {"promptId": 77}]})
    assert found.prompt_id == ASKED, "the root is what was asked for"
    assert [child.prompt_id for child in found.children] == ["", "77"]


@pytest.mark.parametrize(
    ("body", "error", "said"),
    [
        pytest.param(b"<html><h1>502 Bad Gateway</h1>", ApiUnavailable, "an HTML page", id="html"),
        pytest.param(b"\n  <!DOCTYPE html>", ApiUnavailable, "an HTML page", id="html-after-blanks"),
        pytest.param(b"", ApiUnavailable, "cut short", id="empty"),
        pytest.param(b"upstream timed out", ApiUnavailable, "not JSON", id="text"),
        pytest.param(b'{"code": 200, "data": {"taskId": 10', ApiUnavailable, "cut short", id="cut"),
        pytest.param(b'{"code": 200} {"code": 200}', ApiUnavailable, "not JSON", id="two"),
        pytest.param(b'{"code": NaN}', ApiUnavailable, "not JSON", id="nan"),
        pytest.param(b'{"msg": "\xff\xfe"}', ApiUnavailable, "not JSON", id="no-utf-8"),
        pytest.param(b'{"msg": "\\ud800"}', ApiUnavailable, "not JSON", id="lone-surrogate"),
        pytest.param(b"null", BadAnswer, "to be an object, got null", id="null"),
        pytest.param(b"[]", BadAnswer, "to be an object, got an array", id="array"),
        pytest.param(b'"ok"', BadAnswer, "to be an object, got a string", id="string"),
        pytest.param(b"true", BadAnswer, "to be an object, got a boolean", id="boolean"),
        pytest.param(b"200", BadAnswer, "to be an object, got a number", id="number"),
        pytest.param(b'{"code": 1e400}', BadAnswer, "out of range", id="float-out-of-range"),
        pytest.param(b'{"code": ' + b"9" * 5_000 + b"}", BadAnswer, "out of range", id="integer-out-of-range"),
        pytest.param(b"[" * 100_000, BadAnswer, f"deeper than {MAX_DEPTH}", id="deep-and-cut"),
        pytest.param(b'{"a":' * 900 + b"1" + b"}" * 900, BadAnswer, f"deeper than {MAX_DEPTH}", id="deep"),
    ],
)
def test_what_is_no_answer(body: bytes, error: type[Exception], said: str) -> None:
    with pytest.raises((ApiUnavailable, BadAnswer)) as caught:
        read_envelope(body)
    assert caught.type is error
    assert said in str(caught.value)


@pytest.mark.parametrize("lenient", [False, True])
def test_a_byte_order_mark_is_passed_over(lenient: bool) -> None:
    assert read_envelope(b"\xef\xbb\xbf" + b'{"code": 200}', lenient=lenient).code == 200


def nested(levels: int) -> bytes:
    """An answer with this many objects and arrays inside one another."""
    return b'{"data":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def test_the_signs_that_a_signature_may_stand_behind_are_bounded() -> None:
    about = b'{"code": 200, "msg": "", "data": {"reason": "%s"}}'
    assert read_envelope(about % (b"=%" * (MAX_SIGNS // 2))).code == 200
    with pytest.raises(BadAnswer, match="more signs of URLs than any list of files"):
        read_envelope(about % (b"=%" * (MAX_SIGNS // 2) + b"="))


def test_depth_is_bounded_to_the_level() -> None:
    read_envelope(nested(MAX_DEPTH))
    with pytest.raises(BadAnswer, match="deeper"):
        read_envelope(nested(MAX_DEPTH + 1))


@pytest.mark.parametrize("data", [None, [], "x", 5, True, [{"promptId": ASKED}]])
def test_data_that_is_no_object(data: Any) -> None:
    with pytest.raises(BadAnswer, match="expected data to be an object"):
        read(data)


@pytest.mark.parametrize("told", ["another", ASKED[:-1], f"{ASKED} ", 5, "x" * 10_000])
def test_an_answer_about_another_prompt_is_refused(told: Any) -> None:
    with pytest.raises(BadAnswer, match="about another prompt") as caught:
        read({"promptId": told})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("told", [ASKED, ASKED.upper(), "", None])
def test_an_answer_about_the_prompt_or_none_is_taken(told: Any) -> None:
    assert read({"promptId": told}).prompt_id == (told or ASKED)


@pytest.mark.parametrize(("msg", "expected"), [("SUCCESS", "SUCCESS"), (None, ""), (5, "5"), (["x"], ""), (True, "")])
def test_the_message_is_text(msg: Any, expected: str) -> None:
    assert read_envelope(json.dumps({"code": 200, "msg": msg}).encode()).msg == expected


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
odd = st.sampled_from(["30", "--5", "-", " 7", "²", URL, "", ASKED, 2**64, -(2**70), 1e308, 10**4299, "9" * 30])
FIELDS = ["code", "msg", "data", "taskId", "promptId", "thumbFileUrl", "state", "imageList", "taskList", "path"]
fields = st.sampled_from(FIELDS)
values: st.SearchStrategy[Any] = st.recursive(
    scalars | odd,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | fields, inner, max_size=4),
    max_leaves=12,
)
images = st.lists(st.dictionaries(fields, values, max_size=4) | values, max_size=3)
told = {"taskId": values, "promptId": values | st.just(ASKED), "state": values | st.just(30), "imageList": images}
children = st.lists(st.fixed_dictionaries({}, optional=told) | values, max_size=3)
answers = st.fixed_dictionaries({"code": values, "data": st.fixed_dictionaries({"taskList": children}, optional=told)})


@modest
@given(values | answers)
@example({"code": "--5"})
@example({"code": 200, "data": {"taskId": "1-"}})
def test_any_json_is_an_answer_or_one_of_the_two_errors(value: Any) -> None:
    try:
        found = read_answer(read_envelope(msgspec.json.encode(value)), ASKED, API)
    except (ApiUnavailable, BadAnswer):
        return
    assert found.task.prompt_id
    for member in found.task.family():
        assert isinstance(member.state, TaskState)
        assert all(isinstance(url, str) for image in member.images for url in (image.path, image.origin) if url)
    assert found.data == value["data"], "kept as it was"


@modest
@given(st.binary() | answers.map(msgspec.json.encode), st.integers(0, 200))
def test_any_bytes_are_an_envelope_or_one_of_the_two_errors(body: bytes, cut: int) -> None:
    try:
        read_envelope(body[:cut])
    except (ApiUnavailable, BadAnswer) as error:
        message = str(error)
    else:
        message = ""
    assert len(message) < 300
