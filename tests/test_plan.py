"""From an answer to distinct files: what a URL names, what of it may be shown, and which name a file gets."""

from __future__ import annotations

import hashlib
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mirror import names
from mirror.answers import read_task
from mirror.errors import Refused
from mirror.models import Asset, Image, PromptId, Role, Task, TaskState
from mirror.plan import plan
from mirror.signatures import signature_names
from mirror.urls import check_url, identity, is_signed, origin, redact, shown
from tests.origin import task as answered
from tests.properties import examples

S3 = "https://muyuhan.s3.amazonaws.com/faceWap/test/original"
PICTURE = f"{S3}/1769594446809030000_TFVMoqDf.png"
FIRST = f"{S3}/1769594620471325196_04aerrvp.mp4"
SECOND = f"{S3}/1769594619399790547_xL19T3ky.mp4"
modest = examples(120)


def done(*urls: str, prompt_id: str = "p", state: TaskState = TaskState.DONE) -> Task:
    """A task that names these as originals; the n-th image has the id n."""
    images = tuple(Image(id=n, origin=url) for n, url in enumerate(urls))
    return Task(prompt_id=PromptId(prompt_id), task_id=1, state=state, images=images)


def named(*urls: str, **published: str) -> dict[str, str]:
    """The names the plan gives, by identity; ``published`` are names that stand already, each of another file."""
    before = {f"https://before.example/{n}": name for n, name in enumerate(published.values())}
    return {asset.identity: asset.name for asset in plan(done(*urls), before).assets}


def documented() -> Task:
    """The page's example: the root repeats what its children name, and shares its taskId with one of them."""
    children = [
        answered("0fdd439fe1a94c8aa3ddaca3cdf50fe5", images=[(PICTURE, FIRST)], taskId=1043),
        answered("5a6ec746cfaf424da38350a323d0fb52", images=[(PICTURE, SECOND)], taskId=1044),
    ]
    children[0]["imageList"][0]["id"], children[1]["imageList"][0]["id"] = 957, 956
    root = answered("ef8ec19d6670c018814358a21a910090", children=children, taskId=1043, thumbFileUrl=PICTURE)
    root["imageList"] = [*children[0]["imageList"], *children[1]["imageList"]]
    return read_task(root, PromptId("ef8ec19d6670c018814358a21a910090"))


def places(asset: Asset) -> list[tuple[str, int | None, int | None, str]]:
    return [(place.prompt_id[:4], place.task_id, place.image_id, place.field) for place in asset.named_by]


def test_the_documented_example_is_three_files_and_all_their_places() -> None:
    made = plan(documented())
    assert made.failures == ()
    picture, first, second = made.assets
    assert (picture.url, picture.name, picture.role) == (PICTURE, "1769594446809030000_TFVMoqDf.png", Role.THUMBNAIL)
    assert (first.url, first.name, first.role) == (FIRST, "1769594620471325196_04aerrvp.mp4", Role.ORIGIN)
    assert (second.url, second.name, second.role) == (SECOND, "1769594619399790547_xL19T3ky.mp4", Role.ORIGIN)
    assert places(picture) == [
        ("ef8e", 1043, None, "thumbFileUrl"),
        ("ef8e", 1043, 957, "path"),
        ("ef8e", 1044, 956, "path"),
        ("0fdd", 1043, None, "thumbFileUrl"),
        ("0fdd", 1043, 957, "path"),
        ("5a6e", 1044, None, "thumbFileUrl"),
        ("5a6e", 1044, 956, "path"),
    ]
    assert places(first) == [("ef8e", 1043, 957, "origin"), ("0fdd", 1043, 957, "origin")]
    assert places(second) == [("ef8e", 1044, 956, "origin"), ("5a6e", 1044, 956, "origin")]


def test_an_image_without_a_task_id_has_its_tasks() -> None:
    (asset,) = plan(
        Task(prompt_id=PromptId("p"), task_id=7, state=TaskState.DONE, images=(Image(path=PICTURE),))
    ).assets
    assert places(asset) == [("p", 7, None, "path")]


def test_signed_variants_of_one_url_are_one_file() -> None:
    made = plan(
        done(
            f"{FIRST}?X-Amz-Expires=60&X-Amz-Signature=aaaa",
            f"{FIRST}?X-Amz-Signature=bbbb&X-Amz-Expires=90",
            FIRST,
            FIRST.replace("https://muyuhan", "HTTPS://MUYUHAN").replace(".com/", ".com:443/"),
        )
    )
    (asset,) = made.assets
    assert asset.identity == FIRST
    assert asset.url == f"{FIRST}?X-Amz-Expires=60&X-Amz-Signature=aaaa", "the first, as received"
    assert [place[2] for place in places(asset)] == [0, 1, 2, 3]


@pytest.mark.parametrize("images", [(Image(path=FIRST), Image(origin=FIRST)), (Image(origin=FIRST), Image(path=FIRST))])
def test_a_file_named_as_both_is_an_original(images: tuple[Image, ...]) -> None:
    (asset,) = plan(Task(prompt_id=PromptId("p"), state=TaskState.DONE, images=images)).assets
    assert asset.role is Role.ORIGIN


@pytest.mark.parametrize("state", [state for state in TaskState if state is not TaskState.DONE])
def test_each_task_of_a_family_counts_by_its_own_state(state: TaskState) -> None:
    child = done(FIRST, prompt_id="child")
    parent = Task(
        prompt_id=PromptId("p"), state=state, thumbnail=PICTURE, images=(Image(origin=SECOND),), children=(child,)
    )
    assert [asset.url for asset in plan(parent).assets] == [FIRST]
    grown = Task(prompt_id=PromptId("p"), state=TaskState.DONE, thumbnail=PICTURE, children=(done(FIRST, state=state),))
    assert [asset.url for asset in plan(grown).assets] == [PICTURE]


def test_what_could_not_be_read_is_a_failure_and_the_rest_goes_on() -> None:
    made = plan(read_task(answered("p", images=[(PICTURE, FIRST)], taskList="none"), PromptId("p")))
    assert [asset.url for asset in made.assets] == [PICTURE, FIRST]
    assert [(failure.error, failure.message) for failure in made.failures] == [
        ("BadAnswer", "task p: taskList: expected an array, got a string")
    ]


BAD_URLS = {
    "file": "file:///etc/passwd",
    "ftp": "ftp://media.example/a.mp4",
    "javascript": "javascript:alert(1)",
    "no-scheme": "media.example/a.mp4",
    "no-scheme-but-a-host": "//media.example/a.mp4",
    "no-host": "https:///a.mp4",
    "only-a-port": "https://:443/a.mp4",
    "space": "https://media.example/a b.mp4",
    "tab": "https://media.example/a\tb.mp4",
    "line-break": "https://media.example/a\r\nHost: evil.example",
    "backslash": "https://media.example\\@evil.example/a.mp4",
    "user": "https://user@media.example/a.mp4",
    "password": "https://user:pass@media.example/a.mp4",
    "port-too-large": "https://media.example:99999/a.mp4",
    "port-no-number": "https://media.example:http/a.mp4",
    "bracket": "https://[::1/a.mp4",
    "too-long": "https://media.example/" + "a" * 16_384,
}


@pytest.mark.parametrize("url", BAD_URLS.values(), ids=BAD_URLS)
def test_a_bad_url_is_a_failure_and_the_rest_goes_on(url: str) -> None:
    with pytest.raises(Refused):
        check_url(url)
    made = plan(done(url, FIRST, url))
    assert [asset.url for asset in made.assets] == [FIRST]
    (failure,) = made.failures
    assert (failure.error, failure.role) == ("Refused", Role.ORIGIN)
    assert "\n" not in failure.message
    assert len(failure.message) < 500
    assert "pass@" not in f"{failure.message}{failure.url}"


GOOD_URLS = [
    FIRST,
    "http://h",
    "https://h:8443/a",
    "https://[2606:4700::1]/a",
    "https://h/%00",
    "https://h/é?a=b#c",
    "https://h/@a:b",
]


@pytest.mark.parametrize("url", GOOD_URLS)
def test_a_good_url_is_planned(url: str) -> None:
    check_url(url)
    assert [asset.url for asset in plan(done(url)).assets] == [url]


@pytest.mark.parametrize(
    "bad", ["https://user:pass@h/a.mp4", "https://h/a\t.mp4", "https://h/a.mp4?token=" + "x" * 16_384]
)
@pytest.mark.parametrize("bad_first", [True, False])
def test_a_bad_url_does_not_stand_before_a_good_one_of_the_same_file(bad: str, bad_first: bool) -> None:
    good = "https://h/a.mp4"
    made = plan(done(bad, good) if bad_first else done(good, bad))
    assert [asset.url for asset in made.assets] == [good]
    assert made.failures == (), "nothing is missing"


def test_of_two_files_with_one_name_the_first_keeps_it() -> None:
    found = named("https://h/1/a.mp4", "https://h/2/a.mp4", "https://h/3/A.MP4", "https://h/4/%61.mp4")
    suffixes = {url: hashlib.sha256(url.encode()).hexdigest()[:8] for url in found}
    assert found == {
        "https://h/1/a.mp4": "a.mp4",
        "https://h/2/a.mp4": f"a-{suffixes['https://h/2/a.mp4']}.mp4",
        "https://h/3/A.MP4": f"A-{suffixes['https://h/3/A.MP4']}.MP4",
        "https://h/4/%61.mp4": f"a-{suffixes['https://h/4/%61.mp4']}.mp4",
    }


def test_a_published_name_stays_and_is_never_given_away() -> None:
    published = {FIRST: "kept.mp4", "https://h/no/longer/named.png": "GONE.png"}
    made = plan(done("https://h/kept.mp4", "https://h/gone.png", FIRST), published)
    by_url = {asset.url: asset.name for asset in made.assets}
    assert by_url[FIRST] == "kept.mp4"
    assert by_url["https://h/kept.mp4"].startswith("kept-")
    assert by_url["https://h/gone.png"].startswith("gone-")


def test_the_manifests_name_is_never_a_files() -> None:
    (name,) = named("https://h/Manifest.JSON").values()
    assert name.startswith("Manifest-")
    assert name.endswith(".JSON")


def test_names_that_were_made_to_collide_still_differ() -> None:
    """Somebody who writes the URLs can foresee every suffix."""
    victim = "https://h/2/a.mp4"
    digest = hashlib.sha256(victim.encode()).hexdigest()
    found = named("https://h/1/a.mp4", f"https://h/a-{digest[:8]}.mp4", f"https://h/a-{digest}.mp4", victim)
    assert len(set(found.values())) == 4


SIGNATURES = [
    *("X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token", "X-Amz-Expires", "x-amz-date"),
    *("Signature", "Expires", "Policy", "Key-Pair-Id", "AWSAccessKeyId", "sig", "token", "access_token"),
    *("X-Goog-Signature", "GoogleAccessId", "x-oss-signature", "OSSAccessKeyId", "x-cos-signature"),
    *("q-sign-algorithm", "q-signature", "auth_key", "hdnts", "wsSecret", "wsTime"),
]
LEGAL = "azAZ09-._~!$'()*+,;:@/?=%"
values = st.text(st.sampled_from(LEGAL), max_size=20).map(lambda text: f"Zq7{text.replace('%', '%2F')}7qZ")
"""Signature values as RFC 3986 lets them stand in a query; both ends are marked, so that a half that leaks is seen."""


def leaks(text: str) -> bool:
    return "Zq7" in text or "7qZ" in text


@modest
@given(st.lists(st.tuples(st.sampled_from(SIGNATURES), values, st.booleans()), min_size=1, max_size=4), st.booleans())
def test_the_value_of_a_signature_is_never_shown(pairs: list[tuple[str, str, bool]], kept: bool) -> None:
    query = "&".join(f"{name.upper() if upper else name}={value}" for name, value, upper in pairs)
    url = f"https://media.example/a.mp4?{'v=1&' if kept else ''}{query}"
    assert is_signed(url)
    assert identity(url) == "https://media.example/a.mp4" + "?v=1" * kept
    for text in (redact(url), redact(f"GET {url} failed: {url}."), redact(f'{{"url": "{url}"}}'), shown(url)):
        assert not leaks(text)
        assert "https://media.example/a.mp4?" in text, "the rest is still there"


@pytest.mark.parametrize(
    ("url", "signed"),
    [
        ("https://h/a?X-Amz-Signature=1", True),
        ("https://h/a?v=1&Key-Pair-Id=1", True),
        ("https://h/a?X%2DAmz%2DSignature=1", True),
        ("https://a.blob.core.windows.net/c/k?sv=1&sig=2", True),
        ("https://h/a", False),
        ("https://h/a?", False),
        ("https://h/a?versionId=1&design=2&assignee=3&expiresoon=4", False),
        ("https://h/Signature=1", False),
        ("https://h/a#Signature=1", False),
        ("https://h/a?v=Signature", False),
        ("https://h/a?sv=1&se=2", False),
    ],
)
def test_signed_is_what_has_a_signature_in_its_query(url: str, signed: bool) -> None:
    assert is_signed(url) is signed


def test_azures_short_names_go_with_its_signature_only() -> None:
    azure = "https://a.blob.core.windows.net/c/a.mp4?sv=2024&sp=r&se=2026&sig=abc"
    assert identity(azure) == "https://a.blob.core.windows.net/c/a.mp4"
    assert len(named("https://h/a.mp4?sv=1&se=2", "https://h/a.mp4?sv=1&se=3", "https://h/a.mp4?sp=4")) == 3


CHOOSES = ["x-oss-process", "x-tos-process", "x-bce-process", "x-image-process", "x-cos-process", "x-amz-version-id"]


@pytest.mark.parametrize("name", [*CHOOSES, "versionId", "partNumber", "response-content-type", "ci-process"])
def test_what_chooses_the_answer_makes_another_file(name: str) -> None:
    film, still = "https://h/film.mp4", f"https://h/film.mp4?{name}=video/snapshot,f_png"
    assert len(named(film, still)) == 2
    assert not is_signed(still)
    assert identity(f"{still}&Signature=Zq7&Expires=1") == redact(still) == still


@pytest.mark.parametrize("path", ["download", "d/", "get.php", "v1.0", "a.b/get", ".;v=a.png"])
@pytest.mark.parametrize("name", ["token", "file_token", "accessToken", "sign", "api_key", "secret", "jwt"])
def test_behind_a_path_that_names_no_file_a_token_may_tell_which(path: str, name: str) -> None:
    one, other = (f"https://h/{path}?X-Amz-Date=1&{name}={value}" for value in ("Zq7a7qZ", "Zq7b7qZ"))
    assert identity(one) != identity(other)
    assert identity(one) == identity(one.replace("Date=1", "Date=2"))
    assert not leaks(identity(one))
    assert is_signed(one)


@pytest.mark.parametrize(
    "query",
    [
        *("accessToken={}", "authToken={}", "txSecret={}&txTime=6{}", "__token__={}", "hmac={}", "my_access_token={}"),
        *("oauth_signature={}", "jwt={}", "client_secret={}", "token={}", "x-oss-credential={}&x-oss-date={}"),
    ],
)
def test_a_freshly_signed_url_of_a_named_file_is_the_same_file(query: str) -> None:
    found = named(*(f"https://h/a.mp4?v=1&{query.replace('{}', value)}" for value in ("Zq7a7qZ", "Zq7b7qZ")))
    assert list(found.values()) == ["a.mp4"]
    assert is_signed(f"https://h/a.mp4?{query}")


@pytest.mark.parametrize(
    "template",
    [
        pytest.param("https://h/token=Zq7x7qZ/{}.mp4", id="in-a-folder"),
        pytest.param("https://h/hdnts=exp=1~acl=*~hmac=Zq7x7qZ/{}.mp4", id="akamai"),
        pytest.param("https://h/sign={}.png", id="in-the-files-own-name"),
        pytest.param("https://h/{}.mp4;token=Zq7x7qZ", id="parameter-of-a-part"),
        pytest.param("https://h/show?url=https://o/x?token=Zq7x7qZ/{}.png", id="url-in-the-query"),
        pytest.param(
            "https://h/show?url=https%3A%2F%2Fo%2Fx%3Ftoken%3DZq7x7qZ%2F{}.png", id="url-in-the-query-encoded"
        ),
    ],
)
def test_what_is_redacted_elsewhere_in_a_url_does_not_make_two_files_one(template: str) -> None:
    found = named(template.format(1), template.format(2))
    assert len(found) == 2
    assert not leaks("".join(found))


@pytest.mark.parametrize(
    "url",
    [
        "https://user:Zq7x7qZ@h/a",
        "https://Zq7x7qZ@h/a",
        "https://user:Zq7@7qZ@h/a",
        "https://user:Zq7'7qZ@h/a",
        "ftp://user:Zq7x7qZ@h/a",
        "https://h/a?X%2DAmz-Signature=Zq7x7qZ",
        "https://h:99999/a?token=Zq7x7qZ",
        "https://h/show?url=https%3A%2F%2Fo%2Fx%3FSignature%3DZq7x7qZ%26v%3D1",
    ],
)
def test_what_may_be_shown_has_no_password(url: str) -> None:
    assert not leaks(identity(url) + redact(url) + shown(url))


def test_given_secrets_are_redacted_and_an_empty_one_is_none() -> None:
    assert redact("Bearer abc.def!", ("abc.def",)) == "Bearer ***!"
    assert redact("nothing to hide: a=b, see a@b.example", ("",)) == "nothing to hide: a=b, see a@b.example"


def test_what_is_shown_is_one_short_line() -> None:
    assert shown("https://h/\n\x1b[2J\u202e") == "https://h/\\n\\x1b[2J\\u202e"
    assert len(shown("https://h/" + "a" * 10_000)) <= 301


@modest
@given(st.text(st.characters()))
def test_any_text_has_an_identity_and_may_be_shown(text: str) -> None:
    for url in (text, f"https://{text}", f"https://h/{text}"):
        assert redact(identity(url)) == identity(url)
        assert shown(url).isprintable()
        assert redact(redact(url)) == redact(url)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://h/a", "HTTPS://H:443/b", True),
        ("http://h", "http://h:80", True),
        ("http://h", "https://h", False),
        ("https://h", "https://h:8443", False),
        ("https://h", "https://h.example", False),
        ("http://h:443", "https://h:443", False),
    ],
)
def test_an_origin_is_scheme_host_and_port(one: str, other: str, same: bool) -> None:
    assert (origin(one) == origin(other)) is same


@modest
@given(
    st.from_regex(
        r"\A(?:https?|HTTP|ftp)://[a-zA-Z0-9.:@-]{1,12}(?:/[A-Za-z0-9._~:@%;+-]{0,8}){0,3}[?#]?[a-z=/.]{0,6}\Z"
    )
)
@example("http://h:80/a")
@example("https://h:4430/a")
@example("http://h:34697/a.png")
@example("http://h:65536/a")
def test_a_plain_url_is_what_the_long_way_makes_of_it(url: str) -> None:
    """Most URLs are recognised at a glance: that must change nothing."""
    assert identity(url) == identity(f"{url}#").rstrip("#") or "#" in url
    assert names.from_url(url) == names.from_url(f"{url}#") or "#" in url
    refused = []
    for each in (url, f"{url}#"):
        try:
            check_url(each)
        except Refused:
            refused.append(each)
    assert len(refused) != 1 or "#" in url


hosts = st.sampled_from(["h", "H", "h:443", "h:8443"])
paths = st.sampled_from(
    ["/1/a.mp4", "/2/a.mp4", "/2/A.mp4", "/é.png", "/e%CC%81.png", "/manifest.json", "/", "/1/a-x.mp4"]
)
kept = st.lists(st.sampled_from(["v=1", "v=2", "sv=1", "sv=2", "se=2", "page", "q=a%26b"]), max_size=2, unique=True)
signed = st.lists(st.tuples(st.sampled_from(SIGNATURES), values).map("=".join), max_size=2)
good = st.builds(lambda host, path, one, two: (f"https://{host}{path}", one, two), hosts, paths, kept, signed)


@modest
@given(
    st.lists(good, max_size=12), st.lists(st.sampled_from(sorted(BAD_URLS.values())), max_size=3), st.integers(0, 12)
)
def test_every_good_url_is_covered_once_under_a_name_of_its_own(
    parts: list[tuple[str, list[str], list[str]]], bad: list[str], first: int
) -> None:
    urls = [base + "?" * bool(one or two) + "&".join([*two, *one]) for base, one, two in parts]
    files: dict[tuple[str | None, int | None, str, tuple[str, ...]], set[int]] = {}
    for n, (base, one, two) in enumerate(parts):
        at = urlsplit(base)
        azure = ("sv=", "se=") if any(pair.startswith("sig=") for pair in two) else ()
        stays = tuple(pair for pair in one if not pair.startswith(azure))
        if at.path == "/":  # names no file: what anybody calls a secret may tell one from another
            stays += tuple(pair for pair in two if not signature_names(pair, schemes_only=True))
        files.setdefault((at.hostname, at.port if at.port != 443 else None, at.path, stays), set()).add(n)

    made = plan(done(*urls, *bad))
    covered = [{place.image_id for place in asset.named_by} for asset in made.assets]
    assert {frozenset(group) for group in covered} == {frozenset(group) for group in files.values()}, (
        "what is one file, and what is not"
    )
    assert len({asset.identity for asset in made.assets}) == len(made.assets)
    assert not leaks("".join(asset.identity for asset in made.assets))
    folded = {names.key(asset.name) for asset in made.assets}
    assert len(folded) == len(made.assets)
    assert "manifest.json" not in folded
    assert len(made.failures) == len({identity(url) for url in bad})

    again = plan(done(*reversed(urls)), {asset.identity: asset.name for asset in made.assets[:first]})
    later = {asset.identity: asset.name for asset in again.assets}
    assert all(later[asset.identity] == asset.name for asset in made.assets[:first]), "a published name stays"
    assert len({names.key(name) for name in later.values()}) == len(later)
