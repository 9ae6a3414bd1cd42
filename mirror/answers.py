"""Reads the API's answers: pure, lenient where the documentation leaves room, and bounded.

The page lists the fields; sibling pages send integers as strings, and anything may be missing or null. What is of
a wrong type is a *flaw* of the task: the rest is used, and the prompt is not called complete.
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from typing import Any

import msgspec

from mirror.errors import ApiUnavailable, BadAnswer
from mirror.models import Answer, HistoryPage, Image, Json, Listed, PromptId, Task, TaskState

MAX_DEPTH = 64
"""Objects and arrays inside one another that an answer may have; the documented ones need six."""

_INTEGER = re.compile(r"-?[0-9]{1,19}")

MOST_FLAWS = 1000
"""So many things that could not be read are told; a broken answer may have a million of them."""

MAX_NODES = 1_000_000
"""Objects and arrays that an answer may have: each costs memory many times its bytes."""

MAX_SIGNS = 1_000_000
"""Signs that a signature may stand behind, as they are or escaped: at each of them one is looked for."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """The outermost object: ``code``, ``msg`` and what ``data`` holds, unread."""

    code: int | None
    msg: str
    data: Any


def read_envelope(body: bytes, *, lenient: bool = False) -> Envelope:
    """The answer's outermost object. ``lenient`` takes numbers and characters that strict JSON has not, too.

    Raises:
        ApiUnavailable: it is no JSON: a gateway's page or an answer cut short, so worth asking again.
        BadAnswer: it is JSON, but not an answer.
    """
    if body.count(b"{") + body.count(b"[") > MAX_NODES:
        raise BadAnswer(f"the answer has more than {MAX_NODES} objects and arrays")
    if sum(map(body.count, (b"=", b"%", b"\\"))) > MAX_SIGNS:
        raise BadAnswer("the answer holds more signs of URLs than any list of files")
    try:
        text = body.removeprefix(BOM_UTF8)  # some frameworks write one, and RFC 8259 lets a reader ignore it
        raw = _leniently(text) if lenient else msgspec.json.decode(text)
    except RecursionError:
        raise BadAnswer(f"the answer is nested deeper than {MAX_DEPTH} levels") from None
    except msgspec.ValidationError as error:
        raise BadAnswer(f"the answer cannot be read: {error}") from None
    except (msgspec.DecodeError, ValueError) as error:
        what = "an HTML page" if body[:256].lstrip()[:1] == b"<" else "not JSON, or cut short"
        raise ApiUnavailable(f"the answer is {what} ({error})") from None
    if not isinstance(raw, dict):
        raise BadAnswer(f"expected the answer to be an object, got {_kind(raw)}")
    if is_too_deep(raw):
        raise BadAnswer(f"the answer is nested deeper than {MAX_DEPTH} levels")
    return Envelope(code=_integer(raw.get("code")), msg=_text(raw.get("msg")), data=raw.get("data"))


def _leniently(body: bytes) -> Any:
    """One odd row must not hide the sound ones beside it: infinite numbers and lone surrogates pass, to be refused."""
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return json.loads(body)


def read_answer(envelope: Envelope, asked: PromptId, url: str) -> Answer:
    """The task in a successful answer. ``asked`` is the promptId that was asked for.

    Raises:
        BadAnswer: ``data`` is no object, or is about another prompt.
    """
    data = envelope.data
    if not isinstance(data, dict):
        raise BadAnswer(f"expected data to be an object, got {_kind(data)}")
    told = _text(data.get("promptId"))
    if told and told.casefold() != asked.casefold():
        raise BadAnswer(f"the answer is about another prompt ({told[:80]!r})")
    return Answer(url=url, code=envelope.code or 0, msg=envelope.msg, task=read_task(data, asked), data=data)


_LARGEST_SECONDS = 1e11
"""A creation time above this is in milliseconds: as seconds it would be the year 5138."""


def read_history(envelope: Envelope) -> HistoryPage:
    """The rows of a page of the history.

    Raises:
        BadAnswer: ``data`` is no array.
    """
    if envelope.data is None:
        return HistoryPage()
    if not isinstance(envelope.data, list):
        raise BadAnswer(f"expected the history's data to be an array, got {_kind(envelope.data)}")
    rows: list[Listed] = []
    flaws: list[str] = []
    for number, raw in enumerate(envelope.data, 1):
        prompt_id = _text(raw.get("promptId")) if isinstance(raw, dict) else ""
        if not prompt_id:
            if len(flaws) < MOST_FLAWS:
                flaws.append(f"row {number} has no promptId")
            continue
        created = _integer(raw.get("createdAt"))
        rows.append(
            Listed(
                prompt_id=PromptId(prompt_id),
                created_at=_seconds(created) if created is not None and created > 0 else None,
                state=_state(raw, (), []),
            )
        )
    return HistoryPage(rows=tuple(rows), flaws=tuple(flaws))


def _seconds(created: int) -> float:
    return created / 1000 if created > _LARGEST_SECONDS else float(created)


def read_task(raw: Json, fallback: PromptId) -> Task:
    """A task from its JSON object; ``fallback`` is its promptId where the object names none."""
    flaws: list[str] = []
    images = tuple(_image(item, flaws) for item in _objects(raw, "imageList", flaws))
    children = tuple(read_task(item, PromptId("")) for item in _objects(raw, "taskList", flaws))
    thumbnail = _url(raw, "thumbFileUrl", flaws)
    return Task(
        prompt_id=PromptId(_text(raw.get("promptId")) or fallback),
        task_id=_integer(raw.get("taskId")),
        task_type=_integer(raw.get("taskType")),
        state=_state(raw, images, flaws),
        reason=_text(raw.get("reason")),
        thumbnail=thumbnail,
        images=images,
        children=children,
        flaws=tuple(flaws),
    )


def _image(raw: Json, flaws: list[str]) -> Image:
    return Image(
        id=_integer(raw.get("id")),
        task_id=_integer(raw.get("taskId")),
        path=_url(raw, "path", flaws),
        origin=_url(raw, "origin", flaws),
    )


def _state(raw: Json, images: tuple[Image, ...], flaws: list[str]) -> TaskState:
    """A missing state is read from the images: what has some is done. An unlisted one has not ended."""
    value = raw.get("state")
    if value is None:
        return TaskState.DONE if any(image.path or image.origin for image in images) else TaskState.OTHER
    number = _integer(value)
    if number is None:
        _note(flaws, f"state: expected an integer, got {_kind(value)}")
        return TaskState.OTHER
    return TaskState(number) if number in set(TaskState) else TaskState.OTHER


def _note(flaws: list[str], flaw: str) -> None:
    """Each kind once: a list of a million numbers has one flaw."""
    if flaw not in flaws:
        flaws.append(flaw)


def _objects(raw: Json, key: str, flaws: list[str]) -> list[Json]:
    value = raw.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        _note(flaws, f"{key}: expected an array, got {_kind(value)}")
        return []
    found = [item for item in value if isinstance(item, dict)]
    if any(item is not None and not isinstance(item, dict) for item in value):
        _note(flaws, f"{key}: expected objects in the array")
    return found


def _url(raw: Json, key: str, flaws: list[str]) -> str | None:
    value = raw.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        _note(flaws, f"{key}: expected a URL, got {_kind(value)}")
        return None
    return value.strip() or None


def _integer(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**63 else None
    if isinstance(value, str):
        if not _INTEGER.fullmatch(value.strip()):
            return None
        value = int(value)
    return value if isinstance(value, int) and abs(value) < 2**63 else None


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def is_too_deep(raw: object) -> bool:
    """True where objects and arrays stand in one another deeper than :data:`MAX_DEPTH`: what reads them recurses."""
    level = [raw]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ())
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _kind(value: object) -> str:
    return {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(
        type(value), "a number"
    )
