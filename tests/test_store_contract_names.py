"""What every Store promises of names, of copies and of manifests, held against each: the disk and three servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from msgspec.structs import replace

from mirror import names
from mirror.errors import Obstructed, Severity
from mirror.manifests.document import encode
from mirror.models import Manifest, ManifestApi, ManifestFile, PromptState, Receipt, Role
from mirror.stores import MANIFEST, Document, Store, Wanted
from tests.helpers import sha256
from tests.store_contract import (
    LARGE,
    SMALL,
    Case,
    bring,
    entry_of,
    head_of,
    new_case,
    small_and_large,
)
from tests.store_places import Place, everywhere, on_each_kind, opened


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with opened(request, tmp_path_factory) as made:
        yield made


@pytest.fixture
def case(place: Place) -> Case:
    return new_case(place)


@on_each_kind
class TestNamesTaken:
    @small_and_large
    def test_by_the_same_bytes(self, case: Case, body: bytes) -> None:
        case.put("film.mp4", body)
        receipt = case.store(body)
        assert (receipt.path, receipt.sha256) == ("film.mp4", sha256(body))
        assert case.files == {"film.mp4": body}
        assert case.unfinished == []

    @pytest.mark.parametrize(
        ("body", "other"),
        [(SMALL, SMALL[::-1]), (SMALL, b"another film"), (LARGE, LARGE[::-1])],
        ids=["small, as long", "small, shorter", "large, as long"],
    )
    def test_by_other_bytes(self, case: Case, body: bytes, other: bytes) -> None:
        case.put("film.mp4", other)
        receipt = case.store(body)
        assert (receipt.path, receipt.sha256) == ("film-1.mp4", sha256(body))
        assert case.files == {"film.mp4": other, "film-1.mp4": body}
        assert case.unfinished == []

    @small_and_large
    def test_while_the_body_came(self, case: Case, body: bytes) -> None:
        assert self.meanwhile(case, body, b"another film").path == "film-1.mp4"
        assert case.files == {"film.mp4": b"another film", "film-1.mp4": body}
        assert case.unfinished == []

    @small_and_large
    def test_by_the_same_bytes_while_the_body_came(self, case: Case, body: bytes) -> None:
        assert self.meanwhile(case, body, body).path == "film.mp4"
        assert case.files == {"film.mp4": body}
        assert case.unfinished == []

    def meanwhile(self, case: Case, body: bytes, theirs: bytes) -> Receipt:
        """Another one's object appears under the first name, when all is written and nothing published."""

        def appear() -> None:
            case.place.wait_until_begun(case.folder, len(body))
            case.put("film.mp4", theirs)

        async def act(store: Store) -> Receipt:
            sink = await store.sink(case.target())
            receipt = await bring(sink, body, head_of(body), meanwhile=appear)
            await sink.close()
            await store.settle(case.target().identity)
            return receipt

        return case.run(act)

    @small_and_large
    def test_all_of_them(self, case: Case, body: bytes) -> None:
        theirs = {"film.mp4": b"another film", "film-1.mp4": body[::-1]}
        for name, other in theirs.items():
            case.put(name, other)

        async def act(store: Store) -> None:
            sink = await store.sink(case.target())
            with pytest.raises(Obstructed, match="taken") as caught:
                await bring(sink, body, head_of(body))
            assert caught.value.severity is Severity.ITEM
            await sink.abort()
            await sink.close()

        case.run(act)
        assert case.files == theirs
        assert case.unfinished == []

    @small_and_large
    def test_by_what_was_this_very_file_before_it_was_damaged(self, case: Case, body: bytes) -> None:
        case.put("film.mp4", body[:-1])
        receipt = case.store(body, target=case.target(sha256=sha256(body)))
        files = case.files
        assert files[receipt.path] == body
        assert files == case.place.repaired("film.mp4", body[:-1], body, "film-1.mp4")


@everywhere
class TestNames:
    ODD = (
        *(
            "a b.mp4",
            "a+b.mp4",
            "a%20b.mp4",
            "100%.mp4",
            "ä.mp4",
            "it's.mp4",
            "🎬 film.mp4",
            "日本語.mp4",
            "a&b=c;d,e.mp4",
        ),
        *("a@b!$(c)[d]{e}^`.mp4", "#1.mp4", "~.mp4", "no extension", "%2e%2e", "$x", "=", "a  b", "é" * 98 + ".mp4"),
    )

    def test_small_bodies_under_odd_names(self, case: Case) -> None:
        stored = {}
        for name in self.ODD:
            assert names.safe(name) == name
            stored[name] = name.encode()
            assert case.store(name.encode(), target=case.target(name, which=name)).path == name
        assert case.read_back == stored
        assert case.unfinished == []

    def test_a_large_body_under_an_odd_name_in_an_odd_folder(self, case: Case) -> None:
        name = "a b+c%20ä 🎬'&=#~$@!.mp4"
        odd = Case(case.place, f"{case.folder} +%41ä'🎬")
        receipt = odd.store(LARGE, target=odd.target(name, which=name), settled=False)
        assert receipt.path == name
        odd.place.restart()
        assert odd.store(LARGE, target=odd.target(name, which=name)) == receipt  # found by what its journal says
        assert odd.read_back == {name: LARGE}
        assert case.unfinished == []

    @examples(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_small_bodies_under_any_name_that_can_be_given(self, case: Case, data: st.DataObject) -> None:
        safe = st.text(max_size=120).map(names.safe).filter(lambda name: bool(name) and not names.is_reserved(name))
        given_names = data.draw(st.lists(safe, min_size=5, max_size=12, unique_by=names.key))
        fresh = new_case(case.place)
        for number, name in enumerate(given_names):
            assert fresh.store(name.encode(), target=fresh.target(name, which=str(number))).path == name
        assert fresh.read_back == {name: name.encode() for name in given_names}


@on_each_kind
class TestAdopt:
    @small_and_large
    def test_a_file_stands_in_another_folder_too(self, case: Case, body: bytes) -> None:
        first = case.target()
        there = entry_of(case.store(body, head_of(body, checks={"sha256": sha256(body)})), first)
        second = Case(case.place, f"{case.folder}-second")
        for _ in range(2):  # the second time it is there already
            receipt = self.adopt(second, (case.folder, there))
            assert receipt is not None
            facts = {name: getattr(there, name) for name in Receipt.__struct_fields__ if name not in ("path", "s3")}
            assert {name: getattr(receipt, name) for name in facts} == facts
            assert receipt.path == "film.mp4"
            assert (receipt.s3 is None) == (there.s3 is None)
        assert (case.files, second.files) == ({"film.mp4": body}, {"film.mp4": body})
        assert case.unfinished == []

    def test_other_files_are_left_alone(self, case: Case) -> None:
        there = entry_of(case.store(SMALL), case.target())
        second = Case(case.place, f"{case.folder}-second")
        second.put("film.mp4", SMALL[::-1])
        receipt = self.adopt(second, (case.folder, there))
        assert receipt is not None
        assert receipt.path == "film-1.mp4"
        assert second.files == {"film.mp4": SMALL[::-1], "film-1.mp4": SMALL}
        third = Case(case.place, f"{case.folder}-third")
        theirs = {"film.mp4": b"1", "film-1.mp4": b"2"}
        for name, other in theirs.items():
            third.put(name, other)
        assert self.adopt(third, (case.folder, there)) is None
        assert third.files == theirs

    def test_what_is_not_there_is_not_adopted(self, case: Case) -> None:
        there = entry_of(case.store(SMALL), case.target())
        second = Case(case.place, f"{case.folder}-second")
        gone = f"{case.folder}-gone"
        assert (
            self.adopt(second, (gone, ManifestFile(path="x", role=Role.ORIGIN, url="u", bytes=1, sha256=None))) is None
        )
        assert second.files == {}
        assert self.adopt(second, (case.folder, there)) is not None

    def adopt(self, into: Case, source: tuple[str, ManifestFile]) -> Receipt | None:
        return into.run(lambda store: store.adopt(source, into.target()))


@on_each_kind
class TestFindAgain:
    @small_and_large
    def test_only_the_very_bytes_under_its_name_are_the_file(self, case: Case, body: bytes) -> None:
        source = new_case(case.place)
        there = replace(entry_of(source.store(body), source.target()), s3=None)
        assert self.find(case, there) is None  # no such folder
        for other in (body[:-1], body + b"!", body[:-1] + bytes([body[-1] ^ 1])):
            case.put("film.mp4", other)
            assert self.find(case, there) is None, len(other)
            assert case.files == {"film.mp4": other}
        case.put("film.mp4", body)
        receipt = self.find(case, there)
        assert receipt is not None
        assert (receipt.path, receipt.bytes, receipt.sha256) == ("film.mp4", len(body), sha256(body))
        assert (receipt.etag, receipt.content_type) == (there.etag, there.content_type)
        where = case.place.placed(case.folder, "film.mp4")
        assert (receipt.s3 and (receipt.s3.key, receipt.s3.etag)) == (where and (where.key, where.etag))

    def find(self, case: Case, file: ManifestFile) -> Receipt | None:
        return case.run(lambda store: store.find_again(case.target(sha256=file.sha256), file))


@everywhere
class TestManifests:
    def manifest(self, case: Case, *urls: str, prompt_id: str = "") -> bytes:
        files = tuple(ManifestFile(path=url, role=Role.ORIGIN, url=url, bytes=1, sha256=None) for url in urls)
        api = ManifestApi(url="http://api/")
        made = Manifest(
            prompt_id=prompt_id or case.folder, state=PromptState.COMPLETE, mirrored_at="2026", api=api, files=files
        )
        return encode(made)

    def test_it_is_written_rewritten_and_read_back(self, case: Case) -> None:
        known = None
        for urls in (("a",), ("a", "b"), ("a", "b")):
            content = self.manifest(case, *urls)
            known = case.run(lambda store, c=content, k=known: store.write_manifest(case.folder, c, k))  # type: ignore[misc]
            assert known == case.place.where(case.folder)
            assert case.files == {MANIFEST: content}
            found = case.run(lambda store: store.read_manifests(["none", case.folder, "none"]))
            assert found == [None, Document(content=content, placed=known), None]
        assert case.unfinished == []

    @pytest.mark.parametrize("urls", [("a",), ("a", "b")], ids=["its answer was lost", "an earlier one"])
    def test_one_of_ours_that_we_do_not_know_of_is_replaced(self, case: Case, urls: tuple[str, ...]) -> None:
        outdated = case.run(lambda store: store.write_manifest(case.folder, self.manifest(case), None))
        case.put(MANIFEST, self.manifest(case, "a"))
        content = self.manifest(case, *urls)
        for known in (None, outdated):
            placed = case.run(lambda store, k=known: store.write_manifest(case.folder, content, k))  # type: ignore[misc]
            assert placed == case.place.where(case.folder)
            assert case.files == {MANIFEST: content}

    def test_one_that_was_deleted_is_written_anew(self, case: Case) -> None:
        content = self.manifest(case, "a")
        elsewhere = case.run(lambda store: store.write_manifest(f"{case.folder}-x", content, None))
        placed = case.run(lambda store: store.write_manifest(case.folder, content, elsewhere))
        assert placed == case.place.where(case.folder)
        assert case.files == {MANIFEST: content}

    @pytest.mark.parametrize("kind", ["of another prompt", "of other files", "of no manifest"])
    def test_a_foreign_one(self, case: Case, kind: str) -> None:
        theirs = {
            "of another prompt": self.manifest(case, prompt_id="another"),
            "of other files": self.manifest(case, "b"),
            "of no manifest": b"notes of my own",
        }[kind]
        ours = self.manifest(case, "a")
        case.put(MANIFEST, theirs)
        with case.place.refuses_to_replace():
            case.run(lambda store: store.write_manifest(case.folder, ours, None))
        assert case.files == {MANIFEST: case.place.replaced(theirs, ours)}


@everywhere
def test_present_tells_of_what_was_stored_and_of_nothing_else(case: Case) -> None:
    target = case.target()
    file = entry_of(case.store(SMALL), target)
    never = ManifestFile(path="never.mp4", role=Role.ORIGIN, url="http://o/never", bytes=1, sha256=None)

    async def act(store: Store) -> list[set[str]]:
        without = Wanted(folder=case.folder, files=(file, never))
        before = await store.present([without])
        placed = await store.write_manifest(case.folder, b"{}")
        nothing = Wanted(folder=f"{case.folder}-none", files=(never,))
        everything = Wanted(folder=case.folder, files=(file, never), manifest=placed)
        return [*before, *await store.present([nothing, everything])]

    assert case.run(act) == [{"film.mp4"}, set(), {"film.mp4", MANIFEST}]
    assert case.run(lambda store: store.present([])) == []
