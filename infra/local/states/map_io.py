"""What a Distributed Map reads from and writes to S3: the items, and the files of its ResultWriter."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from .data import encode, to_bytes
from .errors import ITEM_READER_FAILED, RESULT_WRITER_FAILED, StateError
from .execution import SUCCEEDED
from .map_run import MapRun
from .ports import S3

# The service closes a result file before it passes 5 GiB.
MAX_FILE_BYTES = 5 * 1024**3


def read_items(s3: S3, arguments: Any, max_items: int | None) -> list[Any]:
    """The JSON array at `{"Bucket", "Key"}`; States.ItemReaderFailed for anything else."""
    try:
        bucket, key = str(arguments["Bucket"]), str(arguments["Key"])
        items = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    except (KeyError, TypeError) as error:
        raise StateError(ITEM_READER_FAILED, "The Arguments of ItemReader need Bucket and Key.") from error
    except (ClientError, BotoCoreError) as error:
        raise StateError(ITEM_READER_FAILED, f"Reading s3://{bucket}/{key} failed: {error}") from error
    except ValueError as error:
        raise StateError(ITEM_READER_FAILED, f"s3://{bucket}/{key} is not JSON: {error}") from error
    if not isinstance(items, list):
        raise StateError(ITEM_READER_FAILED, f"s3://{bucket}/{key} does not hold a JSON array.")
    return items[:max_items]


class ResultWriter:
    """Writes a finished Map Run's results below `<prefix>/<id of the Map Run>/`."""

    def __init__(self, s3: S3, arguments: Any, max_file_bytes: int = MAX_FILE_BYTES) -> None:
        self._s3 = s3
        self._max_file_bytes = max_file_bytes
        try:
            self._bucket = str(arguments["Bucket"])
            self._prefix = str(arguments.get("Prefix", "")).strip("/")
        except (KeyError, TypeError, AttributeError) as error:
            raise StateError(RESULT_WRITER_FAILED, "The Arguments of ResultWriter need Bucket.") from error

    def write(self, run: MapRun, items: Sequence[Any]) -> dict[str, Any]:
        """Write the files and the manifest; the Map state's result."""
        folder = "/".join(part for part in (self._prefix, run.arn.rpartition(":")[2]) if part)
        children = [child for child in run.children if child]
        records = {
            "FAILED": [child.record() for child in children if child.status != SUCCEEDED],
            "PENDING": [_pending(item) for item, child in zip(items, run.children, strict=True) if not child],
            "SUCCEEDED": [child.record() for child in children if child.status == SUCCEEDED],
        }
        manifest = {
            "DestinationBucket": self._bucket,
            "MapRunArn": run.arn,
            "ResultFiles": {kind: list(self._files(folder, kind, entries)) for kind, entries in records.items()},
        }
        key = f"{folder}/manifest.json"
        self._put(key, to_bytes(encode(manifest)))
        run.results_written = len(children)
        return {"MapRunArn": run.arn, "ResultWriterDetails": {"Bucket": self._bucket, "Key": key}}

    def _files(self, folder: str, kind: str, entries: Sequence[Any]) -> Iterator[dict[str, Any]]:
        for number, body in enumerate(_parts(entries, self._max_file_bytes)):
            key = f"{folder}/{kind}_{number}.json"
            self._put(key, body)
            yield {"Key": key, "Size": len(body)}

    def _put(self, key: str, body: bytes) -> None:
        try:
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=body, ContentType="application/json")
        except (ClientError, BotoCoreError) as error:
            raise StateError(RESULT_WRITER_FAILED, f"Writing s3://{self._bucket}/{key} failed: {error}") from error


def _parts(entries: Sequence[Any], limit: int) -> Iterator[bytes]:
    """JSON arrays of at most `limit` bytes, one entry at least in each."""
    texts: list[bytes] = []
    size = 2
    for entry in entries:
        text = to_bytes(encode(entry))
        if texts and size + len(text) + 1 > limit:
            yield b"[" + b",".join(texts) + b"]"
            texts, size = [], 2
        texts.append(text)
        size += len(text) + 1
    if texts:
        yield b"[" + b",".join(texts) + b"]"


def _pending(item: Any) -> dict[str, Any]:
    return {"Input": encode(item), "InputDetails": {"Included": True}, "Status": "PENDING"}
