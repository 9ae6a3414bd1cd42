"""``mirror doctor``: is everything there that a run needs? Each line says what was found, and what to fix."""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
import msgspec

from mirror.api import Api
from mirror.catalog import Catalog
from mirror.cli.common import require_bucket, s3_flags, settings_for
from mirror.config import load, require_api
from mirror.custody import catalog_path
from mirror.errors import (
    ApiError,
    BadParameter,
    ConfigError,
    ExitCode,
    Locked,
    MirrorError,
    NoData,
    StoreUnavailable,
    worst,
)
from mirror.limits import open_files_cap
from mirror.models import PromptId
from mirror.observers.text import size
from mirror.places import open_places
from mirror.settings import Settings
from mirror.stores.local import LocalStore
from mirror.stores.s3.policy import smallest


class Finding(NamedTuple):
    """``code`` is what a run would exit with; OK with a ``warning`` is worth a look."""

    subject: str
    message: str
    code: ExitCode = ExitCode.OK
    warning: bool = False


@click.command()
@click.option("--root", metavar="DIR", help="Where the archive stands.")
@click.option("--policy", is_flag=True, help="Print the smallest IAM policy for the bucket, and nothing else.")
@s3_flags
@click.pass_context
def doctor(ctx: click.Context, /, root: str | None, policy: bool, **s3: str) -> int:
    """Check configuration, token, disk, API and bucket, and say what to fix."""
    try:
        settings = settings_for(ctx, {"root": root, **s3})
        if policy:
            return _print_policy(settings)
        path = load(ctx.obj).path
        findings = [Finding("config", str(path) if path else "no file; environment and defaults")]
    except ConfigError as error:
        _show(Finding("config", str(error), ExitCode.USAGE))
        return ExitCode.USAGE
    for check in (_check_disk, _check_limits, _check_bucket, _check_token, _check_api):
        findings.extend(_guarded(check, settings))
        if check is _check_token and findings[-1].code:
            break  # without these nothing can be asked
    for finding in findings:
        _show(finding)
    return worst(finding.code for finding in findings)


def _guarded(check: Callable[[Settings], Iterator[Finding]], settings: Settings) -> list[Finding]:
    try:
        return list(check(settings))
    except MirrorError as error:
        code = error.exit_code if error.exit_code is not ExitCode.INCOMPLETE else ExitCode.STOPPED
        return [Finding(check.__name__.removeprefix("_check_"), str(error), code)]


def _show(finding: Finding) -> None:
    mark = "fail" if finding.code else "warn" if finding.warning else "ok"
    colour = {"fail": "red", "warn": "yellow", "ok": "green"}[mark]
    click.echo(f"{click.style(f'{mark:<5}', fg=colour)} {finding.subject:<8} {finding.message}")


def _check_token(settings: Settings) -> Iterator[Finding]:
    api = settings.api
    require_api(api)
    if api.token_file:
        mode = Path(api.token_file).stat().st_mode
        if mode & (stat.S_IRGRP | stat.S_IROTH):
            yield Finding("token", f"{api.token_file} can be read by others: chmod 600 it", warning=True)
    if api.base_url.startswith("http://") and not api.base_url.startswith(("http://127.", "http://localhost")):
        yield Finding("token", "travels unencrypted: [api] base_url is http, not https", warning=True)
    yield Finding("token", f"set, sent {f'as {api.auth_scheme!r}' if api.auth_scheme else 'bare'}")


def _check_disk(settings: Settings) -> Iterator[Finding]:
    store = LocalStore(settings)
    try:
        store.open()
        probe = store.root / ".mirror" / "parts" / f"doctor-{secrets.token_hex(4)}"
        try:
            with probe.open("wb") as file:
                file.write(b"doctor")
                os.fsync(file.fileno())
            probe.replace(probe.with_suffix(".done"))
        except OSError as error:
            raise StoreUnavailable(f"{store.root} cannot be written to: {error.strerror}") from None
        finally:
            probe.with_suffix(".done").unlink(missing_ok=True)
        free, kept = store.free_space(), settings.transfer.min_free_space
        if free < kept:
            yield Finding("disk", f"{size(free)} free, less than min_free_space {size(kept)}", ExitCode.STOPPED)
        else:
            yield Finding("disk", f"{store.root} can be written to, {size(free)} free")
        yield _check_catalog(settings)
    except Locked as error:
        yield Finding("disk", str(error), warning=True)
    finally:
        store.close()


def _check_catalog(settings: Settings) -> Finding:
    path = catalog_path(settings)
    if not path.exists():
        return Finding("catalog", "none yet: the first run makes it")
    catalog = Catalog.open(path)
    counts = asyncio.run(_counts(catalog))
    return Finding("catalog", f"sound, {counts} prompts")


async def _counts(catalog: Catalog) -> int:
    try:
        await catalog.check()
        return sum(prompts for prompts, _, _ in (await catalog.counts()).values())
    finally:
        await catalog.close()


def _check_limits(settings: Settings) -> Iterator[Finding]:
    cap = open_files_cap()
    if cap < 64:
        yield Finding(
            "limits", f"only {cap} transfers at once: raise the limit on open files (ulimit -n)", warning=True
        )
    yield Finding("limits", f"up to {cap} transfers at once, {size(settings.transfer.memory)} for buffers")


def _print_policy(settings: Settings) -> int:
    require_bucket(settings)
    click.echo(msgspec.json.format(msgspec.json.encode(smallest(settings.s3)), indent=2))
    return ExitCode.OK


def _check_bucket(settings: Settings) -> Iterator[Finding]:
    if settings.s3.bucket:
        yield from asyncio.run(_try_bucket(settings))


async def _try_bucket(settings: Settings) -> list[Finding]:
    from mirror.stores.s3.probe import Probe  # noqa: PLC0415

    places = open_places(settings)
    assert places.bucket is not None
    try:
        await places.ready()
        findings = [Finding("bucket", f"{places.bucket.shown} is there, in {places.bucket.region}")]
        async for tried in Probe(places.bucket.objects).run():
            code = tried.error.exit_code if tried.error is not None else ExitCode.OK
            findings.append(Finding(tried.subject, tried.message, code, tried.warning))
    finally:
        await places.close()
    return findings


def _check_api(settings: Settings) -> Iterator[Finding]:
    yield asyncio.run(_ask(settings))


async def _ask(settings: Settings) -> Finding:
    """Ask about a prompt that cannot exist: an answer that denies it shows that the token is taken."""
    once = msgspec.structs.replace(settings.transfer, attempts=1)
    api = Api(msgspec.structs.replace(settings, transfer=once), lambda _: None)
    try:
        await api.task_info(PromptId(secrets.token_hex(16)))
    except (NoData, BadParameter):
        pass
    except ApiError as error:
        return Finding("api", f"{api.url}: {error}", ExitCode.STOPPED)
    finally:
        await api.close()
    return Finding("api", f"{api.url} answers and takes the token")
