"""What proves to a store that it got what was sent, and to us that it has it. Pure.

Source: the S3 user guide, "Checking object integrity in Amazon S3": a multipart object's checksum is COMPOSITE (the
checksum of its parts' checksums, with ``-N``) for SHA-256, and FULL_OBJECT for CRC-64/NVME.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from mirror.digests import crc64nvme

Policy = Literal["sha256", "crc64nvme", "when_required"]
Buffers = Sequence[bytes | memoryview]

PREFIX = "x-amz-checksum-"


def base64_of(digest: str) -> str:
    """A hex digest as S3's headers have it."""
    return base64.b64encode(bytes.fromhex(digest)).decode()


def hex_of(checksum: str | None) -> str | None:
    """A full object's checksum as hex; None for a composite one (``…-3``), or none."""
    try:
        return base64.b64decode(checksum, validate=True).hex() if checksum else None
    except ValueError:
        return None


def proofs(policy: Policy, body: Buffers, sha256: str) -> dict[str, str]:
    """The headers that let the store check a body, by our policy. ``sha256`` is the body's, in hex."""
    if policy == "sha256":
        return {f"{PREFIX}sha256": base64_of(sha256)}
    if policy == "crc64nvme":
        crc = crc64nvme()
        for buffer in body:
            crc.update(buffer)
        return {f"{PREFIX}crc64nvme": base64_of(crc.hexdigest())}
    md5 = hashlib.md5(usedforsecurity=False)
    for buffer in body:
        md5.update(buffer)
    return {"Content-MD5": base64.b64encode(md5.digest()).decode()}


def contradicts(sent: Mapping[str, str], answer: Mapping[str, str]) -> str | None:
    """What of a store's answer to a PUT says that it has other bytes than were sent; None where nothing does."""
    for name, value in sent.items():
        told = answer.get(name)
        if name.startswith(PREFIX) and told is not None and told != value:
            return name
    etag = answer.get("ETag", "").strip('"')
    if "Content-MD5" in sent and re.fullmatch(r"[0-9a-f]{32}", etag) and not _is_opaque(answer):
        return "ETag" if etag != base64.b64decode(sent["Content-MD5"]).hex() else None
    return None


def _is_opaque(answer: Mapping[str, str]) -> bool:
    """True where encryption makes an ETag something else than the MD5 of the bytes."""
    return answer.get("x-amz-server-side-encryption", "").startswith("aws:kms") or any(
        name.lower().startswith("x-amz-server-side-encryption-customer") for name in answer
    )


def composite(parts: Iterable[str | None]) -> str | None:
    """The checksum of a multipart object from its parts' SHA-256 (base64); None where one is none."""
    digest, count = hashlib.sha256(), 0
    for checksum in parts:
        whole = bytes.fromhex(hex_of(checksum) or "")
        if len(whole) != digest.digest_size:
            return None
        digest.update(whole)
        count += 1
    return f"{base64.b64encode(digest.digest()).decode()}-{count}" if count else None


def multipart_etag(etags: Iterable[str]) -> str | None:
    """The ETag of a multipart object from those of its parts; None where they are no MD5s."""
    digest, count = hashlib.md5(usedforsecurity=False), 0
    for etag in etags:
        bare = etag.strip('"')
        if not re.fullmatch(r"[0-9a-f]{32}", bare):
            return None
        digest.update(bytes.fromhex(bare))
        count += 1
    return f'"{digest.hexdigest()}-{count}"' if count else None


def same_etag(one: str, other: str) -> bool:
    """Whether two ETags are one: some stores leave the quotes out."""
    return one.strip('"') == other.strip('"')
