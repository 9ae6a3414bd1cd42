"""All that a `FaultProxy` can do to a request: a table of faults, each a function that makes one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

EditHeaders: TypeAlias = Callable[[dict[str, str]], dict[str, str]]


@dataclass(frozen=True)
class Reply:
    """What is sent in place of the server's answer."""

    status: int
    code: str | None = None  # of S3's error document; None: no body
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""  # the body, where there is no code

    @property
    def body(self) -> bytes:
        if self.code is None:
            return self.content
        inner = f"<Code>{self.code}</Code><Message>scripted</Message><RequestId>fault</RequestId>"
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'.encode()


@dataclass(frozen=True)
class Fault:
    """What happens to a request. Without any of this it is carried out as it is."""

    forward: bool = True  # is it carried out at all
    early: bool = False  # not forwarded: is it answered before its body is read
    held: Literal["", "request", "answer"] = ""  # what waits for `release`
    delay: float = 0.0  # seconds before the answer is begun
    reply: Reply | None = None  # instead of the server's
    reset: bool = False  # instead of any
    edit: EditHeaders | None = None
    cut: int | None = None  # bytes of the answer's body, then the connection closes
    rate: float = 0.0  # bytes of the answer's body per second; 0: as fast as can be
    upload_rate: float = 0.0  # the same of the request's
    corrupt: int | None = None  # which byte of the request's body has its bits flipped


def answer(
    status: int, code: str | None = None, *, headers: Mapping[str, str] | None = None, early: bool = False
) -> Fault:
    """Answers instead of the server, which never hears of it. `early`: before the body is read, then closes.

    `answer(200, "InternalError")` is S3's error in the body of a success.
    """
    return Fault(forward=False, early=early, reply=Reply(status, code, headers or {}))


def answer_with(status: int, content: bytes, *, headers: Mapping[str, str] | None = None) -> Fault:
    """Answers instead of the server with this body, whatever it is."""
    return Fault(forward=False, reply=Reply(status, None, headers or {}, content))


def reset_before() -> Fault:
    """Resets the connection once the head of the request has arrived; the server never hears of it."""
    return Fault(forward=False, early=True, reset=True)


def forward_then_reset() -> Fault:
    """Loses the answer: the server carries the request out, then the connection is reset before any answer."""
    return Fault(reset=True)


def forward_then_answer(status: int, code: str | None = None, *, headers: Mapping[str, str] | None = None) -> Fault:
    """Swaps the answer: the server carries the request out, and this is what is told."""
    return Fault(reply=Reply(status, code, headers or {}))


def cut_answer(size: int) -> Fault:
    """Closes the connection after so many bytes of the answer's body."""
    return Fault(cut=size)


def slow(bytes_per_second: float) -> Fault:
    """Sends the answer's body no faster than this."""
    return Fault(rate=bytes_per_second)


def slow_upload(bytes_per_second: float) -> Fault:
    """Takes the request's body no faster than this."""
    return Fault(upload_rate=bytes_per_second)


def delay(seconds: float) -> Fault:
    """The server carries the request out; its answer comes so much later."""
    return Fault(delay=seconds)


def corrupt_upload(offset: int) -> Fault:
    """Flips the bits of one byte of the request's body on its way: of the bytes on the wire, aws-chunked or not."""
    return Fault(corrupt=offset)


def hold(what: Literal["request", "answer"] = "request") -> Fault:
    """Keeps the request from the server, or the server's answer from the client, until `FaultProxy.release()`."""
    return Fault(held=what)


def edit_response_headers(edit: EditHeaders) -> Fault:
    """Passes the answer's headers, as they are spelled, through a function; the body is as it was."""
    return Fault(edit=edit)
