"""Which parameters of a URL are a signature, and where in any text their values stand.

A text of any length and content takes time in proportion to its length: nothing in the expressions could be matched in
two ways, so that nothing is tried twice over. They look for the names, and stop only where one might begin.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple
from urllib.parse import unquote

_STORES = "[xX]-(?i:amz|goog|oss|cos|obs|tos|bce)-"
_STORES_SAY = frozenset(
    (
        *("algorithm", "credential", "date", "expires", "signature", "signature-version", "signedheaders"),
        *("signedqueries", "security-token", "content-sha256", "additional-headers", "s3session-token", "region-set"),
        *("user-agent", "checksum-mode", "ac-source-ip", "ac-subnet-mask", "ac-vpc-id", "ac-forward-allow"),
    )
)
_OTHERS_SAY = frozenset(
    (
        *("q-sign-algorithm", "q-ak", "q-sign-time", "q-key-time", "q-header-list", "q-url-param-list", "q-signature"),
        *("signature", "expires", "policy", "key-pair-id", "sig", "x-expires", "x-signature"),
        *("awsaccesskeyid", "googleaccessid", "ossaccesskeyid", "accesskeyid"),
        *("auth_key", "hdnts", "hdnea", "hdntl", "wssecret", "wstime", "txsecret", "txtime"),
    )
)
"""What stores and CDNs sign with. What chooses the answer (``x-oss-process``, ``versionId``, …) is none of it."""

_AZURE = frozenset(("se", "sp", "sr", "st", "sv", "spr", "sip", "ske", "skoid", "sks", "skt", "sktid", "skv"))
"""Azure's short names are a signature's only beside ``sig``; elsewhere they may mean anything."""

_WORDS = frozenset(
    (
        *("token", "token__", "accesstoken", "authtoken", "oauthtoken", "idtoken", "refreshtoken", "sessiontoken"),
        *("secret", "secretkey", "secret_key", "secret-key", "password", "passwd", "jwt", "hmac", "signature"),
        *("apikey", "api_key", "api-key", "authorization"),
    )
)
"""Secrets of anybody's making, also as the last word of a name: ``my_token``, ``clientSecret``."""
_WHOLE_WORDS = frozenset(("sign", "authkey", "auth-key"))


def _spelled(names: Iterable[str]) -> str:
    """An expression for the names in capitals or not, where what two begin with stands once.

    Sets of two letters instead of a flag: the engine passes over a set that does not fit without trying it.
    """
    tails: dict[str, set[str]] = {}
    for name in sorted(names):
        tails.setdefault(name[:1], set()).add(name[1:])
    ends = "?" if tails.pop("", None) else ""
    ways = [
        (f"[{sign}{sign.upper()}]" if sign.isalpha() else re.escape(sign)) + (_spelled(rest) if any(rest) else "")
        for sign, rest in tails.items()
    ]
    return f"(?:{'|'.join(ways)}){ends}" if ends or len(ways) > 1 else ways[0]


_SCHEME = f"(?:{_STORES}{_spelled(_STORES_SAY)}|{_spelled(_OTHERS_SAY)})"
_WORD = _spelled(_WORDS)
_WHOLE_WORD = _spelled(_WHOLE_WORDS)
_CAMEL = r"(?<=[a-z0-9])(?=[A-Z])"


class _Names(NamedTuple):
    """What a parameter's whole name is compared with."""

    scheme: re.Pattern[str]
    word: re.Pattern[str]
    azure: re.Pattern[str]


@cache
def _names() -> _Names:
    """Compiled by the first who needs them: that takes longer than many a run's whole start, and most never do."""
    return _Names(
        re.compile(_SCHEME),
        re.compile(rf"{_WHOLE_WORD}|(?:.*(?:(?<![^\W_])|{_CAMEL}))?{_WORD}", re.DOTALL),
        re.compile(_spelled(_AZURE)),
    )


# A URL may stand inside another's query, or in JSON that is a string: its signs are escaped then, even several times.
_BACKSLASHES = r"(?:\\|%(?:25)*+5[cC])++"
# A run of backslashes is looked at from its front alone, and before a percent sign that may be one.
_ESCAPE = rf"(?:(?<!\\)(?<!5[cC]){_BACKSLASHES}u00|%(?:25)*+)"
_EQUALS = rf"(?:=|%(?P<level>(?:25)*+)3[dD]|{_BACKSLASHES}u003[dD])"
_VALUE = (
    rf"(?:[^&#\s\"<>\\%]++|{_BACKSLASHES}(?!u002[36])"
    r"|%(?!(?:25)*+5[cC])(?(level)(?!(?:25)*+2[36]))|%(?=(?P=level)25(?:25)*+2[36]))++"
)
"""It is taken to end where its own level does: at a sign that is escaped no more often than its ``=``."""


def _after(signs: str, escaped: str) -> str:
    return rf"(?:{signs}|(?<=%{escaped})|(?<=25{escaped})|(?<=u00{escaped}))"


def _named() -> str:
    """The names as they are, but for what stands before them. A look ahead first: at most places it ends the matter."""
    any_sign = "[0-9a-fA-F]{2}"
    whole = _after(r"(?<![\w.-])", any_sign) + f"(?:{_SCHEME}|{_WHOLE_WORD})"
    word = _after(rf"(?<![^\W_])|{_CAMEL}", any_sign) + _WORD
    azure = _after("(?<=[?&;])", "(?:3[fF]|26|3[bB])") + _spelled(_AZURE) + "(?!=)"
    firsts = {name[0] for name in ("x", *_OTHERS_SAY, *_WORDS, *_WHOLE_WORDS, *_AZURE)}
    return rf"(?=[{''.join(sorted(firsts | {first.upper() for first in firsts}))}][a-zA-Z-])(?:{whole}|{word}|{azure})"


class _Texts(NamedTuple):
    """What finds names and values in a text."""

    signed: re.Pattern[str]
    assigned: re.Pattern[str]
    azure: re.Pattern[str]
    escaped_sign: re.Pattern[str]
    escaped: re.Pattern[str]
    rest_of_name: re.Pattern[str]


@cache
def _texts() -> _Texts:
    return _Texts(
        signed=re.compile(f"({_named()}{_EQUALS}){_VALUE}"),
        assigned=re.compile(f"({_EQUALS}){_VALUE}"),
        azure=re.compile(rf"([?&;]{_spelled(_AZURE)}=)[^&#\s\"<>]+"),
        escaped_sign=re.compile(rf"{_ESCAPE}(?:2[dDeE]|3[0-9]|[46][1-9a-fA-F]|[57][0-9aA]|5[fF])"),
        escaped=re.compile(rf"{_ESCAPE}([0-9a-fA-F]{{2}})"),
        rest_of_name=re.compile(rf"(?:[\w.-]++|{_BACKSLASHES}(?!u003[dD])|%(?:25)*+(?!3[dD]|5[cC])[0-9a-fA-F]{{2}})*+"),
    )


_NO_NAME = re.compile(r"[^\w.-]")
_LONGEST_NAME = 1000
"""Characters of a name that are looked at before the first of its signs that is escaped."""


def signature_names(query: str, *, schemes_only: bool = False) -> set[str]:
    """The names, as they stand in a query, whose values are part of a signature.

    ``schemes_only`` leaves out the words that anybody uses for a secret: those may be all that tells two files apart.
    """
    patterns = _names()
    names = {name: unquote(name) for name in {pair.partition("=")[0] for pair in query.split("&") if pair}}
    signed = {name for name, told in names.items() if patterns.scheme.fullmatch(told)}
    if any(names[name].lower() == "sig" for name in signed):
        signed |= {name for name, told in names.items() if patterns.azure.fullmatch(told)}
    if not schemes_only:
        signed |= {name for name, told in names.items() if patterns.word.fullmatch(told)}
    return signed


def without_signatures(text: str, instead: str) -> str:
    """``text`` with ``instead`` for each value of a signature."""
    pieces = _texts().signed.split(text)  # what is between, a name with its sign, how that was escaped; no value
    pieces[2::3] = [instead] * (len(pieces) // 3)
    text = _without_escaped_names("".join(pieces), instead)
    return _texts().azure.sub(rf"\1{instead}", text) if "sig=" in text.lower() else text


def _without_escaped_names(text: str, instead: str) -> str:
    """The same for names of which a sign is escaped: so rare that each is looked at by itself."""
    patterns, texts = _names(), _texts()
    kept: list[str] = []
    done = seen = 0  # what was taken over; what was part of a name or value already
    for sign in texts.escaped_sign.finditer(text):
        if sign.start() < seen:
            continue
        end = texts.rest_of_name.match(text, sign.end()).end()  # type: ignore[union-attr]  # of nothing, too
        begin, seen = max(seen, sign.start() - _LONGEST_NAME), end
        before = texts.escaped.sub(lambda found: chr(int(found[1], 16)), text[begin:end])
        name = _NO_NAME.split(before)[-1]
        in_query = before[: len(before) - len(name)][-1:] in ("?", "&", ";") and text[end : end + 1] != "="
        if not (
            patterns.scheme.fullmatch(name)
            or patterns.word.fullmatch(name)
            or (in_query and patterns.azure.fullmatch(name))
        ):
            continue
        if value := texts.assigned.match(text, end):  # only now: a value may be all the rest of the text
            kept += (text[done : value.end(1)], instead)
            done = seen = value.end()
    return "".join([*kept, text[done:]])
