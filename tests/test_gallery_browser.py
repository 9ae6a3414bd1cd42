"""The gallery in a real Chromium, from disk and from a plain server: it renders, filters, plays, and that is all."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import browser, media
from tests.shelf import Shelf, child
from tests.test_gallery import HOSTILE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(bool(browser.why_not()), reason=browser.why_not())

LONG = "No face was found in the picture. " * 12


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.running() as found:
        yield found


def clip(seconds: float = 3.0) -> bytes:
    """A real video that every Chromium plays: VP8 in WebM."""
    av = pytest.importorskip("av")
    out = io.BytesIO()
    with av.open(out, "w", format="webm") as container:
        stream = container.add_stream("libvpx", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(round(seconds * 10)):
            frame = av.VideoFrame(64, 48, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([(number * 8) % 256]) * plane.buffer_size)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def stocked(root: Path) -> Shelf:
    """One of each: a picture, a video, a family with a failed child, a partial one, a failed one, a pending one."""
    shelf = Shelf(root)
    shelf.pair("picture", 1, at="2026-03-05T10:00:00Z", task={"prompt": "a lighthouse at dusk"})
    film = shelf.file("video", "clip.webm", clip(), content_type="video/webm", media={"kind": "video", "seconds": 3.0})
    shelf.put(
        "video", [film, shelf.file("video", "still.png", media.png(64, 48), "thumbnail")], at="2026-03-04T10:00:00Z"
    )
    family = [
        shelf.file("family", f"{number}.png", media.png(40, 30, number), owner=f"child-{number}") for number in range(6)
    ]
    children = [*(child(f"child-{number}") for number in range(6)), child("child-x", 2, "the child has no face")]
    shelf.put("family", family, at="2026-02-03T10:00:00Z", task={"taskList": children})
    gone = {"url": "https://media.example.com/gone.mp4", "role": "origin", "error": "Gone", "message": "HTTP 404"}
    kept = shelf.file("partial", "kept.png", media.png(seed=9))
    shelf.put("partial", [kept], state="partial", at="2026-02-02T10:00:00Z", errors=[gone])
    shelf.put("failed", state="failed", at="2026-01-01T10:00:00Z", task={"reason": LONG, "taskType": 6})
    shelf.put("pending", state="pending", at="2025-12-31T23:59:59Z", task={"state": 20})
    return shelf


def written(root: Path) -> Path:
    """The page of an archive, written by our own command line; in a process of its own, for a browser has our loop."""
    subprocess.run([sys.executable, "-m", "mirror", "gallery", "--root", str(root)], check=True, timeout=60)
    return root / "gallery" / "index.html"


@pytest.fixture(scope="module")
def archive_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browser") / "archive"
    stocked(root)
    written(root)
    return root


@pytest.fixture(params=["file", "http"])
def base(request: pytest.FixtureRequest, archive_root: Path) -> Iterator[str]:
    """Where the archive is looked at from, as an address that ends with a slash."""
    if request.param == "file":
        yield f"{archive_root.as_uri()}/"
        return
    with browser.served(archive_root) as address:
        yield address


@pytest.fixture
def watched(chromium: Browser, base: str) -> Iterator[browser.Watched]:
    found = browser.Watched(chromium.new_context(viewport={"width": 1280, "height": 800}).new_page())
    yield found
    found.close(base)


@pytest.fixture
def page(watched: browser.Watched, base: str) -> Page:
    return watched.open(f"{base}gallery/index.html")


def until(page: Page, expected: str | Callable[[], bool]) -> None:
    """Wait for the page's expression, or what we see of it, to hold. Playwright's own way is to have the page evaluate
    a string over and over, and that is refused."""
    for _ in range(100):
        if expected() if callable(expected) else page.evaluate(expected):
            return
        page.wait_for_timeout(100)
    pytest.fail(f"never came true: {expected}")


def ids(page: Page) -> list[str]:
    """The prompts that are shown, as they are ordered."""
    found: list[str] = page.locator(".card").evaluate_all(
        "links => links.map((link) => new URLSearchParams(link.hash.slice(1)).get('id'))"
    )
    return found


ALL = ["picture", "video", "family", "partial", "failed", "pending"]


def test_everything_is_there_and_its_pictures_are_loaded(page: Page) -> None:
    assert ids(page) == ALL
    until(page, "[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert page.locator(".card img").count() >= 6
    card = page.get_by_role(
        "link", name=re.compile(r"^Upscaled picture failed, nothing to see, January 2026 Jan 1 failed No face")
    )
    assert card.count() == 1
    assert "No face was found" in card.inner_text()
    assert page.get_by_role("list", name="Prompts").get_by_role("listitem").count() == 6
    assert page.locator("#count").inner_text() == "6 prompts"


from_disk = pytest.mark.parametrize("base", ["file"], indirect=True)


@from_disk
@pytest.mark.parametrize(
    ("act", "shown", "address"),
    [
        (lambda page: page.get_by_role("button", name="Failed 1").click(), ["failed"], "state=failed"),
        (lambda page: page.get_by_role("button", name="Videos").click(), ["video"], "kind=video"),
        (lambda page: page.get_by_label("Search").fill("LIGHTHOUSE dusk"), ["picture"], "q=LIGHTHOUSE"),
        (lambda page: page.get_by_label("Search").fill("child-3"), ["family"], "q=child-3"),
        (lambda page: page.get_by_label("Search").fill("clip.webm"), ["video"], "q=clip.webm"),
        (lambda page: page.get_by_label("From").fill("2026-03-05"), ["picture"], "from=2026-03-05"),
        (lambda page: page.get_by_label("to", exact=True).fill("2025-12-31"), ["pending"], "to=2025-12-31"),
        (lambda page: page.get_by_label("Task").select_option("6"), ["failed"], "type=6"),
        (lambda page: page.get_by_label("Order").select_option("oldest"), ALL[::-1], "sort=oldest"),
    ],
    ids=["state", "kind", "text", "child", "file name", "from", "to", "task", "order"],
)
def test_it_filters_and_the_address_says_so(
    watched: browser.Watched, base: str, act: Any, shown: list[str], address: str
) -> None:
    page = watched.open(f"{base}gallery/index.html")
    act(page)
    until(page, f"location.hash.includes({address!r})")
    assert ids(page) == shown
    if "sort" not in address:
        assert page.locator("#count").inner_text() == "1 of 6 prompts"
    page.reload()
    page.locator(".card").first.wait_for()
    assert ids(page) == shown, "whoever is given the address sees the same"


@from_disk
def test_nothing_found_says_so_and_leads_back(page: Page) -> None:
    page.get_by_label("Search").fill("no such thing")
    page.get_by_text("No prompt fits the search and the filters.").wait_for()
    page.get_by_role("button", name="Show everything").click()
    assert ids(page) == ALL


def test_a_video_plays_under_the_pointer_and_stops(page: Page) -> None:
    page.locator(".tile[data-video]").first.hover()
    until(page, "document.querySelector('.tile video')?.currentTime > 0.2")
    assert page.evaluate("document.querySelector('.tile video').muted")
    page.get_by_label("Search").hover()
    until(page, "!document.querySelector('.tile video')")


def test_a_video_plays_where_the_keyboard_is(page: Page) -> None:
    page.locator(".card").first.focus()
    page.keyboard.press("ArrowRight")
    until(page, "document.querySelector('.tile video')?.currentTime > 0.1")


def test_it_is_used_by_the_keyboard_alone(page: Page) -> None:
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    dialog.wait_for()
    assert "id=video" in page.url
    until(page, "document.querySelector('dialog video.media')?.currentTime > 0.2")
    page.keyboard.press("ArrowRight")
    dialog.get_by_role("button", name="1 of 7: 0.png").wait_for()
    for _ in range(20):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    until(page, "document.activeElement.hash === '#id=family'")  # the focus is on what was looked at
    until(page, "!location.hash.includes('id=')")
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keys").wait_for()


def test_the_detail_view_tells_all_that_the_manifest_does(page: Page, archive_root: Path) -> None:
    page.get_by_role("link", name=re.compile("^Face swap complete, 6 pictures")).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("the child has no face").first.wait_for()
    assert dialog.get_by_role("heading", name="Child child-3").count() == 1
    dialog.get_by_role("button", name="4 of 7: 3.png").click()
    digest = dialog.locator("details[open] .mono").first.inner_text()
    assert digest in (archive_root / "family" / "manifest.json").read_text()
    assert dialog.get_by_text("child-3 task 1 image 1: origin").is_visible()
    assert (
        dialog.get_by_role("link", name="https://media.example.com/3.png").get_attribute("rel") == "noreferrer noopener"
    )
    until(page, "document.querySelector('dialog img.media')?.naturalWidth === 40")
    link = dialog.get_by_role("link", name="manifest.json").get_attribute("href")
    assert link is not None
    assert (archive_root / "gallery" / link).is_file()


def test_a_checksum_is_copied(chromium: Browser, archive_root: Path) -> None:
    with browser.served(archive_root) as base:
        context = chromium.new_context(permissions=["clipboard-read", "clipboard-write"])
        watched = browser.Watched(context.new_page())
        page = watched.open(f"{base}gallery/index.html#id=picture")
        page.get_by_role("button", name="Copy SHA-256").first.click()
        page.get_by_text("SHA-256 copied").wait_for(state="attached")
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied in (archive_root / "picture" / "manifest.json").read_text()
        watched.close(base)


@from_disk
def test_reasons_are_complete_in_the_detail_view(page: Page) -> None:
    page.get_by_role("link", name=re.compile("^Upscaled picture failed")).click()
    page.get_by_role("dialog").locator(".reasons").get_by_text(LONG.strip()).wait_for()


@pytest.mark.parametrize("size", [(360, 720), (1280, 800)])
def test_a_long_reason_stays_in_its_place_and_scrolls(chromium: Browser, tmp_path: Path, size: tuple[int, int]) -> None:
    shelf = Shelf(tmp_path / "archive")
    shelf.put("long", state="failed", task={"reason": LONG * 8, "taskList": [child("c", 2, LONG * 8)]})
    damaged = shelf.file("short", "a.png", b"no picture")
    shelf.put("short", [damaged, shelf.file("short", "b.png", b"nor this", image=2)])
    base = f"{written(shelf.root).as_uri()}"
    watched = browser.Watched(
        chromium.new_context(viewport={"width": size[0], "height": size[1]}, reduced_motion="reduce").new_page()
    )
    for prompt_id, is_long in (("long", True), ("short", False)):
        page = watched.open(f"{base}#id={prompt_id}")
        page.reload()
        page.locator("dialog .note p").wait_for()
        boxes = {
            name: page.evaluate(f"document.querySelector('dialog {name}').getBoundingClientRect().toJSON()")
            for name in (".note", ".note p", ".view", ".turn.back", ".turn.on")
        }
        assert boxes[".view"]["top"] <= boxes[".note"]["top"]
        assert boxes[".note"]["bottom"] <= boxes[".view"]["bottom"]
        assert boxes[".turn.back"]["right"] <= boxes[".note p"]["left"]
        assert boxes[".note p"]["right"] <= boxes[".turn.on"]["left"]
        assert (
            page.evaluate(
                "(() => { const note = document.querySelector('dialog .note');"
                " note.scrollTop = 1e6; return note.scrollTop > 0; })()"
            )
            == is_long
        )
    watched.close(f"{shelf.root.as_uri()}/")


@from_disk
def test_back_closes_what_was_opened(page: Page) -> None:
    page.locator(".card").first.click()
    page.get_by_role("dialog").wait_for()
    page.go_back()
    page.get_by_role("dialog").wait_for(state="hidden")
    assert ids(page) == ALL


@from_disk
def test_dark_and_light(watched: browser.Watched, base: str) -> None:
    page = watched.page
    page.emulate_media(color_scheme="dark")
    watched.open(f"{base}gallery/index.html")
    colour = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(colour)
    page.get_by_role("button", name="Dark theme", pressed=True).click()
    light = page.evaluate(colour)
    assert dark != light
    page.reload()
    page.locator(".card").first.wait_for()
    assert page.evaluate(colour) == light, "what was chosen stays, whatever the system says"


@from_disk
def test_touch_opens_and_swipes(chromium: Browser, base: str) -> None:
    context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    watched = browser.Watched(context.new_page())
    page = watched.open(f"{base}gallery/index.html")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_role("button", name="Filters").tap()
    page.get_by_role("button", name="Videos").tap()
    page.locator(".card").tap()
    page.get_by_role("dialog").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    watched.close(base)


@from_disk
def test_who_wants_no_motion_gets_none(chromium: Browser, base: str) -> None:
    watched = browser.Watched(chromium.new_context(reduced_motion="reduce").new_page())
    page = watched.open(f"{base}gallery/index.html")
    page.locator(".tile[data-video]").first.hover()
    page.wait_for_timeout(400)
    assert page.locator(".tile video").count() == 0
    watched.close(base)


@from_disk
def test_who_skips_to_the_pictures_keeps_the_filter(watched: browser.Watched, base: str) -> None:
    page = watched.open(f"{base}gallery/index.html#state=failed")
    page.get_by_role("link", name="Skip to the pictures").focus()
    page.keyboard.press("Enter")
    until(page, "document.activeElement.classList.contains('card')")
    assert ids(page) == ["failed"]
    assert page.url.endswith("#state=failed")


@from_disk
def test_an_address_that_names_a_hidden_prompt_or_none_says_so(watched: browser.Watched, base: str) -> None:
    page = watched.open(f"{base}gallery/index.html#state=failed&id=nosuch")
    until(page, "document.querySelector('#count').textContent === '1 of 6 prompts · none has the id nosuch'")
    assert page.url.endswith("#state=failed")
    page.get_by_role("button", name="All 6").click()
    assert page.locator("#count").inner_text() == "6 prompts"
    page.evaluate("location.hash = '#state=failed&id=video'")
    page.locator("dialog video.media").wait_for()
    assert ids(page) == ALL, "the filter gives way"
    page.get_by_text("The filters were cleared").wait_for(state="attached")
    page.evaluate("location.hash = '#id=failed'")
    page.get_by_role("dialog").locator(".reasons").wait_for()
    page.evaluate("location.hash = '#id=nosuch'")
    until(page, "location.hash === '#id=failed'")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="hidden")
    assert "none has the id nosuch" in page.locator("#count").inner_text()


def test_an_id_is_a_prompt_before_it_is_a_child(chromium: Browser, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "archive")
    shelf.pair("kid", at="2026-01-01T00:00:00Z")
    shelf.pair("parent", 1, at="2026-03-01T00:00:00Z", task={"taskList": [child("kid"), child("other")]})
    page_path = written(shelf.root)
    for named, opened in (("kid", "kid"), ("other", "parent")):
        watched = browser.Watched(chromium.new_page())
        page = watched.open(f"{page_path.as_uri()}#id={named}")
        page.locator("dialog .panel dd").first.wait_for()
        assert page.locator("dialog .panel dd").first.inner_text().strip() == opened
        watched.close(f"{shelf.root.as_uri()}/")


# What shows nothing, or turns text around; and what is part of a picture sign.
UNSEEN = "\u180e \u00ad \u034f \u3164 \U000e0041 \u202e \u2066 \ufeff a\ufe0f"
SPELLED = r"\u180e \u00ad \u034f \u3164 \u{e0041} \u202e \u2066 \ufeff a\ufe0f"


def test_what_is_not_seen_is_spelled_out_also_in_what_is_pointed_at(chromium: Browser, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "archive")
    shelf.pair(f"id {UNSEEN}", task={"reason": f"why {UNSEEN} \u2603\ufe0f", "taskList": [child(f"of {UNSEEN}", 2)]})
    watched = browser.Watched(chromium.new_page())
    page = watched.open(written(shelf.root).as_uri())
    page.locator(".card").click()
    page.get_by_role("dialog").get_by_text(f"why {SPELLED} \u2603\ufe0f").first.wait_for()
    told = page.evaluate(
        "[...document.querySelectorAll('[title], [alt], [aria-label]')]"
        ".flatMap((one) => ['title', 'alt', 'aria-label'].map((name) => one.getAttribute(name) ?? '')).join('\\n')"
    )
    assert f"of {SPELLED}" in told
    assert not set(UNSEEN) - set(" a\ufe0f") & set(told)
    watched.close(f"{shelf.root.as_uri()}/")


def test_what_did_not_fail_does_not_stand_under_what_did(chromium: Browser, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "archive")
    told = [(30, "all is well"), (10, "it waits"), (20, "it runs"), (2, "no face"), (30, "")]
    children = [child(f"child-{number}", *each) for number, each in enumerate(told)]
    files = [shelf.file("p", f"{number}.bin", b"?", content_type="video/mp4", image=number) for number in range(300)]
    shelf.put("p", files, state="pending", task={"taskList": children, "taskType": 2**63 - 1})
    shelf.pair("q", at="2026-01-01T00:00:00Z", task={"reason": "SUCCESS"})
    watched = browser.Watched(chromium.new_page())
    page = watched.open(written(shelf.root).as_uri())
    page.get_by_label("Task").select_option(label=f"Task type {2**63 - 1}")
    assert ids(page) == ["p"]
    page.get_by_role("button", name="Clear all").click()
    assert page.locator(".card .reason").all_inner_texts() == ["no face"]
    page.locator(".card").first.click()
    page.locator("dialog .panel .reasons").first.wait_for()
    sections = {
        section.locator("h3").inner_text(): section.locator("li").all_inner_texts()
        for section in page.locator("dialog .panel section:has(.reasons)").all()
    }
    assert {name: [text.rpartition("\n")[2] for text in texts] for name, texts in sections.items()} == {
        "What went wrong": ["no face"],
        "Still under way": ["it waits", "it runs"],
        "What the service says": ["all is well"],
    }
    assert page.locator("dialog .thumb .number").all_inner_texts()[:3] == ["1", "2", "3"]
    back, on = page.get_by_role("button", name="Previous"), page.get_by_role("button", name="Next")
    assert [one.get_attribute("aria-disabled") for one in (back, on)] == ["true", "false"]
    page.evaluate("location.hash = '#id=q'")
    page.locator("dialog img.media").wait_for()
    until(page, "document.querySelector('.turn.on').ariaDisabled === 'true'")
    assert back.get_attribute("aria-disabled") == "false"
    watched.errors = []  # those are no videos
    watched.close(f"{shelf.root.as_uri()}/")


def test_every_control_has_a_name(page: Page) -> None:
    page.locator(".card").nth(2).click()
    page.get_by_role("dialog").get_by_role("button", name="1 of 7: 0.png").wait_for()
    nameless = page.evaluate(
        "[...document.querySelectorAll('a, button, input, select, summary, video[controls], [role]')]"
        ".filter((one) => !("
        "one.ariaLabel || one.labels?.length || one.textContent.trim() || one.getAttribute('aria-labelledby')"
        ")).map((one) => one.outerHTML).filter((one) => !/role=.(status|group|region)/.test(one))"
    )
    assert nameless == []
    twice = page.evaluate(
        "(() => { const ids = [...document.querySelectorAll('[id]')].map((one) => one.id);"
        " return ids.filter((id, at) => ids.indexOf(id) !== at); })()"
    )
    assert twice == []


def test_nothing_that_was_injected_runs(chromium: Browser, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "archive")
    for number, text in enumerate(HOSTILE):
        shelf.put(
            f"{text[:60]} {number}",
            state="failed",
            task={"reason": text, "prompt": text, text: text, "taskList": [child(text, 2, text)]},
            errors=[{"error": text, "message": f"it {text}", "url": f"javascript:owned=1//{number}"}],
        )
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"><script>parent.owned = 1</script></svg>'
    files = [
        shelf.file("media", "a.svg", svg, "thumbnail", content_type="image/svg+xml", url="javascript:owned=1"),
        shelf.file(
            "media", "b.png", b"<html><script>owned = 1</script>", content_type="text/html", url="data:text/html,x"
        ),
    ]
    shelf.put("media", files, at="2026-05-05T00:00:00Z")
    with browser.served(tmp_path) as base:
        for address in (f"{base}archive/", f"{shelf.root.as_uri()}/"):
            written(shelf.root)
            watched = browser.Watched(chromium.new_context().new_page())
            page = watched.open(f"{address}gallery/index.html")
            page.locator(".card").first.click()
            page.get_by_role("dialog").locator(".reasons, .files").first.wait_for()
            hrefs: set[str] = set()
            for _ in range(2 * len(HOSTILE) + 3):
                hrefs |= set(page.evaluate("[...document.querySelectorAll('dialog [href]')].map((one) => one.href)"))
                page.keyboard.press("ArrowRight")
                page.wait_for_timeout(20)
            assert {href.partition(":")[0] for href in hrefs} <= {"file", "http"}, "manifests and our own media"
            assert len(hrefs) >= len(HOSTILE) + 1
            assert page.evaluate("typeof window.owned") == "undefined"
            watched.close(address)


def many(root: Path, count: int) -> Path:
    """The manifests of so many prompts, with two pictures each that are not there: none is looked at."""
    shelf = Shelf(root)
    entry = shelf.file("shared", "one.png", media.png(32, 24))
    for number in range(count):
        state = "failed" if number % 10 == 9 else "complete"
        day = f"2026-{1 + number % 12:02}-{1 + number % 28:02}T{number % 24:02}:00:00Z"
        files = [] if state == "failed" else [entry, entry | {"path": "two.png", "url": "https://media.example.com/2"}]
        shelf.put(f"prompt-{number:05}", files, state=state, at=day, task={"reason": "no face"} if not files else {})
    return root


def test_five_thousand_stay_few_in_the_document(chromium: Browser, tmp_path: Path) -> None:
    page_path = written(many(tmp_path / "archive", 5000))
    assert page_path.stat().st_size < 10_000
    base = f"{page_path.parent.parent.as_uri()}/"
    watched = browser.Watched(chromium.new_context(viewport={"width": 1280, "height": 800}).new_page())
    page = watched.open(page_path.as_uri())
    assert watched.loaded("cards-") == ["cards-00001.js"], "a page of cards at a time"
    most = 0
    for _ in range(30):
        page.evaluate("window.scrollBy(0, 2500)")
        page.wait_for_timeout(16)
        most = max(most, page.evaluate("document.querySelectorAll('*').length"))
    assert most < 2500
    until(page, lambda: len(watched.loaded("cards-")) > 1)
    assert len(watched.loaded("cards-")) < 5
    page.get_by_label("Search").fill("prompt-04999")
    until(page, "document.querySelector('#count').textContent === '1 of 5,000 prompts'")
    assert len(watched.loaded("cards-")) == 5, "a search looks through all of them"
    page.locator(".card").click()
    page.get_by_role("dialog").locator(".reasons").wait_for()
    assert len(watched.loaded("detail-")) == 1
    page.goto("about:blank")
    watched.open(page_path.as_uri())
    page.locator(".card").first.focus()
    page.keyboard.press("End")
    until(page, "document.activeElement.dataset.index === '4999'")
    assert page.evaluate("document.querySelectorAll('*').length") < 2500
    watched.errors = [error for error in watched.errors if "ERR_FILE_NOT_FOUND" not in error]
    watched.close(base)


def test_a_prompt_of_a_thousand_children_opens(chromium: Browser, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "archive")
    entry = shelf.file("p", "0.png", media.png(8, 8))
    files = [
        entry
        | {"path": f"{n}.png", "url": f"https://media.example.com/{n}.png"}
        | {"named_by": [{"prompt_id": f"child-{n}", "task_id": n, "image_id": n, "field": "origin"}]}
        for n in range(1000)
    ]
    children = [child(f"child-{n}", 2 if n % 4 == 3 else 30, f"reason {n}" if n % 4 == 3 else "") for n in range(1400)]
    shelf.put("p", files, task={"taskList": children})
    watched = browser.Watched(chromium.new_context().new_page())
    page = watched.open(f"{written(shelf.root).as_uri()}#id=p&item=500")
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="500 of 1100: 499.png").wait_for()
    page.keyboard.press("ArrowRight")
    dialog.get_by_text("501 / 1100").wait_for()
    assert page.evaluate("document.querySelectorAll('*').length") < 15_000
    assert dialog.get_by_text("more: manifest.json has them all").count() == 2
    watched.errors = [error for error in watched.errors if "ERR_FILE_NOT_FOUND" not in error]
    watched.close(f"{shelf.root.as_uri()}/")


@from_disk
@pytest.mark.skipif(browser.AXE is None, reason="MIRROR_AXE names no axe.min.js (npm pack axe-core)")
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(chromium: Browser, base: str, width: int, scheme: Any) -> None:
    """Contrast in both themes, among other things."""
    context = chromium.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = browser.Watched(context.new_page()).open(f"{base}gallery/index.html")
    page.locator(".card").first.wait_for()
    assert browser.AXE is not None
    page.evaluate(Path(browser.AXE).read_text("utf-8"))
    for act in ("", ".card", "#help"):
        if act:
            page.keyboard.press("Escape")
            page.evaluate(f"document.querySelector('{act}').click()")
            page.wait_for_timeout(300)
        assert (
            page.evaluate("axe.run().then((found) => found.violations.map((one) => [one.id, one.nodes.length]))") == []
        )
    context.close()
