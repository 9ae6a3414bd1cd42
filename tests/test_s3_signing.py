"""Who we are to the store: where credentials are found, how they are kept fresh, and what is said without any."""

from __future__ import annotations

import base64
import json
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import TypeAlias

import pytest

from mirror.errors import ConfigError, Denied, ExitCode, MirrorError, StoreUnavailable
from mirror.stores.s3 import signing
from mirror.stores.s3.signing import EMPTY
from mirror.stores.s3.store import S3Store
from tests.helpers import sha256
from tests.s3 import faults
from tests.s3.bucket import Bucket
from tests.s3.proxy import FOREVER, FaultProxy
from tests.s3.seen import Seen
from tests.s3.servers import Server
from tests.s3_runs_small import KEY, REGION, SECRET, as_user, in_bucket, loaded, sent, settings_for, signed_as

EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}

Profiles: TypeAlias = Callable[..., None]


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profiles:
    """Writes ~/.aws/config and ~/.aws/credentials."""

    def write(config: str, credentials: str = "") -> None:
        for name, text in (("AWS_CONFIG_FILE", config), ("AWS_SHARED_CREDENTIALS_FILE", credentials)):
            file = tmp_path / name.lower()
            file.write_bytes(text.encode("utf-8", "surrogatepass"))
            monkeypatch.setenv(name, str(file))

    return write


# Where they are found


def test_the_environment_gives_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    identity = loaded()
    assert signed_as(identity) == KEY
    assert not identity.is_stale
    assert "X-Amz-Security-Token" not in identity.headers("GET", "http://h/", {}, REGION, EMPTY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session")
    assert loaded().headers("GET", "http://h/", {}, REGION, EMPTY)["X-Amz-Security-Token"] == "session"


def test_a_profile_gives_credentials_and_a_region(profiles: Profiles) -> None:
    keys = f"aws_access_key_id = %s\naws_secret_access_key = {SECRET}\n"
    profiles("[profile films]\nregion = eu-west-3\n", f"[default]\n{keys % 'DEFAULT'}[films]\n{keys % 'FILMS'}")
    assert signed_as(loaded()) == "DEFAULT"
    films = loaded(profile="films")
    assert signed_as(films) == "FILMS"
    assert films.session.region_name == "eu-west-3"
    assert loaded(profile="films", region="eu-west-1").session.region_name == "eu-west-1"


@pytest.fixture
def counting(tmp_path: Path, profiles: Profiles) -> Callable[[], int]:
    """A credential process whose keys have a number, and expire in two minutes; how often it was called."""
    calls, script = tmp_path / "calls", tmp_path / "give"
    soon = (datetime.now(UTC) + timedelta(minutes=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    told = json.dumps({"Version": 1, "AccessKeyId": "KEY%s", "SecretAccessKey": SECRET, "Expiration": soon})
    script.write_text(f"#!/bin/sh\necho >> {calls}\nprintf '{told}' $(wc -l < {calls})\n")
    script.chmod(0o700)
    profiles(f"[default]\ncredential_process = {script}\n")
    return lambda: len(calls.read_text().splitlines()) if calls.exists() else 0


def test_keys_that_are_about_to_expire_are_fetched_anew_but_not_for_every_signature(
    counting: Callable[[], int],
) -> None:
    identity = loaded()
    before = counting()
    assert before >= 1
    assert {signed_as(identity) for _ in range(3)} == {f"KEY{before}"}
    assert not identity.is_stale
    identity.refresh()
    assert counting() == before + 1
    assert signed_as(identity) == f"KEY{before + 1}"


def test_nor_at_once_again_where_that_takes_long(counting: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which each call takes a hundred seconds."""
    monkeypatch.setattr(signing, "time", SimpleNamespace(monotonic=lambda: 100.0 * counting()))
    identity = loaded()
    assert counting() >= 1
    assert not identity.is_stale


@pytest.mark.parametrize("bucket", ["ministack"], indirect=True)
@pytest.mark.parametrize("operation", ["PutObject", "HeadObject"])
def test_keys_that_the_store_says_have_expired_are_looked_for_again(
    operation: str, bucket: Bucket, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", bucket.server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", bucket.server.secret_key)

    def is_old(seen: Seen) -> bool:
        return f"Credential={bucket.server.access_key}/" in seen.headers["authorization"]

    async def act(store: S3Store) -> None:
        other = bucket.server.user(EVERYTHING)  # the keys were changed under our feet
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", other.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", other.secret_key)
        proxy.fault(is_old, faults.answer(400, "ExpiredToken"), times=FOREVER)
        proxy.clear()
        if operation == "PutObject":
            await store.objects.put("k", [b"x"], 1, sha256(b"x"), {})
        else:
            assert await store.objects.find("k") is None
        assert proxy.count(is_old) >= 1
        assert f"Credential={other.access_key}/" in proxy.requests[-1].headers["authorization"]

    in_bucket(settings_for(bucket.through(proxy), tmp_path), act)


def test_load_starts_from_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    identity = loaded()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ANEW")
    assert signed_as(identity) == KEY
    identity.load()
    assert signed_as(identity) == "ANEW"


def role(server: Server, principal: dict[str, str], action: str) -> str:
    """A role that this principal may take on and that may do everything; its ARN."""
    iam = server.client("iam")
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": principal, "Action": action}]}
    name = f"role-{uuid.uuid4().hex[:12]}"
    arn: str = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    iam.put_role_policy(RoleName=name, PolicyName="all", PolicyDocument=json.dumps(policy))
    return arn


@pytest.mark.parametrize("region", [REGION, ""])
def test_a_role_is_taken_on_with_the_credentials_that_are_found(
    region: str, ministack: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no region is told: the bucket's is found later."""
    nobody = ministack.user(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}]}
    )
    as_user(nobody, monkeypatch)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", ministack.endpoint)
    bucket = Bucket.new(ministack)
    url = f"{ministack.endpoint}/{bucket.name}"
    assert sent(loaded(), url).status == 403
    identity = loaded(role_arn=role(ministack, {"AWS": "*"}, "sts:AssumeRole"), region=region)
    assert signed_as(identity) != nobody.access_key
    assert not identity.is_stale
    assert sent(identity, url).status == 200


def test_a_token_file_is_changed_for_a_role(ministack: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claims = base64.urlsafe_b64encode(json.dumps({"iss": "https://accounts.google.com", "sub": "s"}).encode())
    token = tmp_path / "token"
    token.write_text(f"e30.{claims.decode().rstrip('=')}.sig")
    arn = role(ministack, {"Federated": "accounts.google.com"}, "sts:AssumeRoleWithWebIdentity")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", ministack.endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_ROLE_ARN", arn)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    bucket = Bucket.new(ministack)
    assert sent(loaded(), f"{ministack.endpoint}/{bucket.name}").status == 200
    token.unlink()
    with pytest.raises(StoreUnavailable, match="no credentials could be fetched"):
        loaded()


class Machine:
    """A machine's metadata service, which gives keys to who asked for a token first."""

    def __init__(self, key: str, secret: str) -> None:
        self.asked: list[str] = []
        machine = self
        told = {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": key,
            "SecretAccessKey": secret,
            "Token": "",
            "LastUpdated": "2026-01-01T00:00:00Z",
            "Expiration": (datetime.now(UTC) + timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        folder = "/latest/meta-data/iam/security-credentials/"
        bodies = {folder: "the-role", f"{folder}the-role": json.dumps(told)}

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                self.answer(200 if self.path == "/latest/api/token" else 404, "token")

            def do_GET(self) -> None:
                known = self.headers["X-aws-ec2-metadata-token"] == "token"
                self.answer(401 if not known else 200 if self.path in bodies else 404, bodies.get(self.path, ""))

            def answer(self, status: int, body: str) -> None:
                machine.asked.append(f"{self.command} {self.path} {status}")
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def machine(ministack: Server) -> Iterator[Machine]:
    made = Machine(ministack.access_key, ministack.secret_key)
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def test_a_machines_role_gives_credentials(
    machine: Machine, ministack: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", machine.endpoint)
    monkeypatch.setenv("AWS_METADATA_SERVICE_TIMEOUT", "60")  # a second by itself, and then there is no such machine
    identity = loaded()
    assert signed_as(identity) == ministack.access_key
    assert machine.asked[0] == "PUT /latest/api/token 200"
    assert [each.rpartition(" ")[2] for each in machine.asked] == ["200"] * len(machine.asked)
    assert not identity.is_stale


# Where there are none


KEYS = f"aws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
ROLE = "arn:aws:iam::000000000000:role/r"
GIVEN = f'{{"Version": %d, "AccessKeyId": "{KEY}", "SecretAccessKey": "{SECRET}"%s}}'
EXPIRED = ', "Expiration": "2026-01-01T00:00:00Z"'
SCRIPTS = {
    "exits": f"echo {SECRET} >&2; exit 1",
    "mumbles": f"echo {SECRET}",
    "another version": f"echo '{GIVEN % (2, '')}'",
    "keys that are expired": f"echo '{GIVEN % (1, EXPIRED)}'",
    "half a key": f'echo \'{{"Version": 1, "SecretAccessKey": "{SECRET}"}}\'',
}
FAILING: dict[str, tuple[type[MirrorError], str, dict[str, str], str, dict[str, str]]] = {
    # case: class, words, environment, ~/.aws/config, settings
    "nothing": (Denied, "no credentials for the bucket were found: set AWS_ACCESS_KEY_ID", {}, "", {}),
    "key alone": (Denied, "incomplete", {"AWS_ACCESS_KEY_ID": KEY}, "", {}),
    "secret alone": (Denied, "no credentials for the bucket", {"AWS_SECRET_ACCESS_KEY": SECRET}, "", {}),
    "half a profile": (Denied, "incomplete", {}, f"[default]\naws_access_key_id = {KEY}\n", {}),
    "no such profile": (ConfigError, "[s3] profile: ", {}, f"[profile other]\n{KEYS}", {"profile": "films"}),
    "no config at all": (ConfigError, "[s3] profile: ", {}, f"{KEYS}[default\n", {}),
    "not text": (ConfigError, "[s3] profile: ", {}, "[default]\n\ud8ff", {}),
    **{case: (MirrorError, "", {}, "[default]\ncredential_process = {script}\n", {}) for case in SCRIPTS},
    "no such process": (MirrorError, "", {}, "[default]\ncredential_process = {script}-none\n", {}),
    "role of no source": (MirrorError, "", {}, f"[default]\nrole_arn = {ROLE}\n", {}),
    "role of itself": (
        MirrorError,
        "",
        {},
        f"[profile a]\nrole_arn = {ROLE}\nsource_profile = b\n[profile b]\nrole_arn = {ROLE}\nsource_profile = a\n",
        {"profile": "a"},
    ),
    "nobody gives roles": (
        StoreUnavailable,
        "no credentials could be fetched",
        {"AWS_ENDPOINT_URL_STS": "http://127.0.0.1:{closed}", "AWS_MAX_ATTEMPTS": "1"},
        f"[default]\n{KEYS}",
        {"role_arn": ROLE, "region": REGION},
    ),
}


@pytest.mark.parametrize("case", FAILING)
def test_without_credentials_it_is_said_why_and_no_secret_with_it(
    case: str, tmp_path: Path, profiles: Profiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, words, environ, config, ours = FAILING[case]
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\n{SCRIPTS.get(case, '')}\n")
    script.chmod(0o700)
    if config:
        profiles(config.replace("{script}", str(script)))
    with socket.socket() as taken:  # nobody listens there, and nobody can come to
        taken.bind(("127.0.0.1", 0))
        for name, value in environ.items():
            monkeypatch.setenv(name, value.replace("{closed}", str(taken.getsockname()[1])))
        with pytest.raises(kind) as caught:
            loaded(**ours)
    assert caught.value.exit_code in (ExitCode.USAGE, ExitCode.STOPPED)
    assert words in str(caught.value)
    assert SECRET not in f"{caught.value}{caught.value!r}{caught.value.__cause__}"


@pytest.mark.parametrize("arn", ["arn:aws:iam::000000000000:role/nobody", "arn:aws:iam::000000000000:user/u", "arn:x"])
def test_a_role_that_cannot_be_taken_on(arn: str, ministack: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    as_user(ministack, monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", ministack.endpoint)
    with pytest.raises(MirrorError) as caught:
        loaded(role_arn=arn)
    assert caught.value.exit_code == 4
    assert arn in str(caught.value) or "(ParamValidationError)" in str(caught.value)
    assert ministack.secret_key not in f"{caught.value}{caught.value!r}"


def test_an_identity_can_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    identity = loaded()
    assert (
        SECRET
        not in f"{identity}{identity!r}{identity.session}{identity.headers('GET', 'http://h/', {}, REGION, EMPTY)}"
    )
