"""A request as a `FaultProxy` saw it, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

KEPT = 1 << 16

_OPERATIONS = {  # method, whether it names an object, and what its query or headers have: the first that fits
    ("POST", True): (("uploads", "CreateMultipartUpload"), ("uploadId", "CompleteMultipartUpload")),
    ("PUT", True): (
        ("partNumber x-amz-copy-source", "UploadPartCopy"),
        ("partNumber", "UploadPart"),
        ("tagging", "PutObjectTagging"),
        ("x-amz-copy-source", "CopyObject"),
        ("", "PutObject"),
    ),
    ("GET", True): (("uploadId", "ListParts"), ("tagging", "GetObjectTagging"), ("", "GetObject")),
    ("HEAD", True): (("", "HeadObject"),),
    ("DELETE", True): (("uploadId", "AbortMultipartUpload"), ("", "DeleteObject")),
    ("GET", False): (
        ("uploads", "ListMultipartUploads"),
        ("versions", "ListObjectVersions"),
        ("versioning", "GetBucketVersioning"),
        ("location", "GetBucketLocation"),
        ("list-type", "ListObjectsV2"),
        ("policy", "GetBucketPolicy"),
        ("", "ListObjects"),
    ),
    ("HEAD", False): (("", "HeadBucket"),),
    ("PUT", False): (("", "CreateBucket"),),
    ("POST", False): (("delete", "DeleteObjects"),),
    ("DELETE", False): (("", "DeleteBucket"),),
}


@dataclass
class Seen:
    """One request. Its `started` and `ended` are numbers of one count, so they tell the order of all that happened."""

    connection: int
    method: str
    path: str  # as on the wire, still percent-encoded
    query: str
    headers: dict[str, str]  # names in lower case
    started: int
    ended: int | None = None  # given before the last of the answer is sent; None: still under way
    body: bytes = b""  # the first 64 KiB of it, as on the wire
    bytes_up: int = 0  # of its body
    bytes_down: int = 0  # of the answer's, as sent to the client
    upstream: int = 0  # what the server answered; 0: it did not, or was not asked
    status: int = 0  # what the client was told; 0: nothing
    answer_headers: dict[str, str] = field(default_factory=dict)  # the server's, names in lower case

    @property
    def params(self) -> dict[str, str]:
        return dict(parse_qsl(self.query, keep_blank_values=True))

    @property
    def bucket(self) -> str:
        return unquote(self.path.split("/", 2)[1])

    @property
    def key(self) -> str:
        """The object's; "" where the request is about the bucket."""
        return unquote("".join(self.path.split("/", 2)[2:]))

    @property
    def operation(self) -> str:
        """What S3 calls it: PutObject, UploadPart, …; "" for what is not in the table."""
        has = {"", *self.params, *self.headers}
        fitting = _OPERATIONS.get((self.method, bool(self.key)), ())
        return next((name for needs, name in fitting if has.issuperset(needs.split())), "")
