"""S3 objects of a run: the manifests of its rounds and its report."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING

from sluice.run import Round

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@lru_cache(maxsize=1)
def s3() -> S3Client:
    import boto3

    return boto3.client("s3")


def write_manifest(bucket: str, run_id: int, planned: Round) -> str:
    """Write the round's chunks, numbers and estimates and nothing else; gives the object's key."""
    key = f"runs/{run_id}/{planned.step}/round-{planned.number}.json"
    items = [{"chunk": number, "rows": rows} for number, rows in planned.chunks]
    put(bucket, key, json.dumps(items, separators=(",", ":")), "application/json")
    return key


def put(bucket: str, key: str, body: str, content_type: str) -> None:
    """Write one text object."""
    s3().put_object(Bucket=bucket, Key=key, Body=body.encode(), ContentType=content_type)
