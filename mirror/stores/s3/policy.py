"""The smallest IAM policy that lets a run do its work, and the right that each call needs. Pure.

Source: the S3 user guide, "Required permissions for Amazon S3 API operations".
"""

from __future__ import annotations

from typing import Any

import msgspec

from mirror.settings import S3Settings

RIGHTS = {
    "ListObjectsV2": "s3:ListBucket",
    "HeadBucket": "s3:ListBucket",
    "HeadObject": "s3:GetObject",
    "GetObject": "s3:GetObject",
    "GetObjectAttributes": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "CopyObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "ListParts": "s3:ListMultipartUploadParts",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "DeleteObject": "s3:DeleteObject",
}
"""The right that an operation needs."""


def smallest(settings: S3Settings) -> dict[str, Any]:
    """The policy for this configuration, as IAM takes it."""
    partitions = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}
    partition = next((name for start, name in partitions.items() if settings.region.startswith(start)), "aws")
    bucket = f"arn:{partition}:s3:::{settings.bucket}"
    prefix = settings.prefix.strip("/")
    objects = ["s3:PutObject", "s3:GetObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    if settings.tags:
        objects.append("s3:PutObjectTagging")
    statements = [
        _allow(["s3:ListBucket", "s3:ListBucketMultipartUploads"], bucket),
        _allow(objects, f"{bucket}/{prefix}/*" if prefix else f"{bucket}/*"),
    ]
    if settings.sources and settings.copy == "auto":
        sources = sorted({source.rstrip("/") for source in settings.sources.values()})
        statements.append(_allow(["s3:GetObject"], *(f"arn:{partition}:s3:::{source}/*" for source in sources)))
    if settings.kms_key_id:
        key = settings.kms_key_id if settings.kms_key_id.startswith("arn:") else "*"
        statements.append(_allow(["kms:GenerateDataKey", "kms:Decrypt"], key))
    return {"Version": "2012-10-17", "Statement": statements}


def on_one_line(settings: S3Settings, right: str = "") -> str:
    """The same as compact JSON, fit for a message, with a right that not every run needs."""
    policy = smallest(settings)
    if right and not any(right in statement["Action"] for statement in policy["Statement"]):
        policy["Statement"][1]["Action"].append(right)
    return msgspec.json.encode(policy).decode()


def _allow(actions: list[str], *resources: str) -> dict[str, Any]:
    resource = resources[0] if len(resources) == 1 else list(resources)
    return {"Effect": "Allow", "Action": actions, "Resource": resource}
