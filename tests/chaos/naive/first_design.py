"""The first design as Lambda functions: mark, update, release, each statement committed by itself.

Only its handling of the flag is kept. Chunks are ranges of the primary key, so that no row moves between them and no
NULL falls through, and what reported success is not asked again: what goes wrong here goes wrong for the flag alone.
"""

from __future__ import annotations

import json
import os
from typing import Any

import boto3
import psycopg2

ROWS_A_CHUNK = 50


def connect() -> Any:
    text = boto3.client("secretsmanager").get_secret_value(SecretId="sluice/target")["SecretString"]
    facts = json.loads(text)
    connection = psycopg2.connect(
        host=facts["host"], port=facts["port"], user=facts["username"], password=facts["password"],
        dbname=facts["dbname"], application_name="sluice:naive",
    )  # fmt: skip
    connection.autocommit = True
    return connection


def run(statement: str, **values: object) -> list[tuple[Any, ...]]:
    connection = connect()
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else [(cursor.rowcount,)]
    finally:
        connection.close()


def validate_config(event: dict[str, Any], context: object) -> dict[str, Any]:
    run("INSERT INTO naive.run (run_key) VALUES (%(key)s) ON CONFLICT DO NOTHING", key=event["run_key"])
    run_id = run("SELECT run_id FROM naive.run WHERE run_key = %(key)s", key=event["run_key"])[0][0]
    return {"job": event["job"], "run_id": run_id, "state": "running"}


def get_chunks(event: dict[str, Any], context: object) -> dict[str, Any]:
    run_id = event["run_id"]
    run(
        """INSERT INTO naive.chunk (run_id, chunk_no, lo, hi)
           SELECT %(run_id)s, no, no * %(rows)s, (no + 1) * %(rows)s
           FROM generate_series(0, (SELECT max("ID") FROM chaos.visits) / %(rows)s) AS no
           ON CONFLICT DO NOTHING""",
        run_id=run_id,
        rows=ROWS_A_CHUNK,
    )
    left = run("SELECT chunk_no FROM naive.chunk WHERE run_id = %(id)s AND reported_at IS NULL", id=run_id)
    bucket, key = os.environ["SLUICE_BUCKET"], f"runs/{run_id}/{context.aws_request_id}.json"  # type: ignore[attr-defined]
    if left:
        body = json.dumps([{"chunk": chunk, "rows": ROWS_A_CHUNK} for (chunk,) in left])
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=body.encode())
    return {
        "action": "work" if left else "finish", "step": "apply", "kind": "update", "round": 1, "count": len(left),
        "bucket": bucket, "key": key, "concurrency": 4, "wait_seconds": 0, "reason": "",
    }  # fmt: skip


def process_chunk(event: dict[str, Any], context: object) -> dict[str, Any]:
    place = {"run_id": event["run_id"], "chunk": event["chunk"]}
    lo, hi = run("SELECT lo, hi FROM naive.chunk WHERE run_id = %(run_id)s AND chunk_no = %(chunk)s", **place)[0]
    [(marked,)] = run(
        """UPDATE chaos.visits SET "UpdateFlag" = 1
           WHERE "ID" >= %(lo)s AND "ID" < %(hi)s AND ("UpdateFlag" IS NULL OR "UpdateFlag" != 1)""",
        lo=lo,
        hi=hi,
    )
    updated = 0
    if marked:
        [(updated,)] = run(
            """UPDATE chaos.visits
               SET "Doubled" = "Minutes" * 2, "applied" = "applied" + 1, "UpdatedDate" = now(), "UpdateFlag" = NULL,
                   "Runs" = array_append("Runs", %(run_id)s::bigint)
               WHERE "UpdateFlag" = 1 AND "ID" >= %(lo)s AND "ID" < %(hi)s""",
            lo=lo,
            hi=hi,
            run_id=event["run_id"],
        )
    run(
        "UPDATE naive.chunk SET reported_at = clock_timestamp() WHERE run_id = %(run_id)s AND chunk_no = %(chunk)s",
        **place,
    )
    return {"chunk": event["chunk"], "state": "done" if marked else "skipped", "rows": updated}


def finish_run(event: dict[str, Any], context: object) -> dict[str, Any]:
    run(
        "UPDATE naive.run SET state = 'succeeded', finished_at = clock_timestamp() WHERE run_id = %(id)s",
        id=event["run_id"],
    )
    return {"state": "succeeded", "error": "", "cause": "", "report": ""}
