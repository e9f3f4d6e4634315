"""template.yaml as it is deployed, on this machine: real PostgreSQL, real workers, the production state machine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from infra.local.postgres import Postgres
from infra.local.processes import wait_until
from infra.local.stack import LocalStack
from sql.packs.conflict_report.generate import CANARY, Size, generate

JOB = "conflict_report/conflict_report"
WORKERS = "sluice-process-chunk"
# Three chunks, and the one of the rows without a key.
ROWS = 22_000
CHUNKS = 4
# Makes a worker wait at the moment at which its chunk is applied and not yet committed.
GATE = """
CREATE FUNCTION public.gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('application_name') ~ '^sluice:\\d+:\\d+:\\d+:'
       AND EXISTS (SELECT FROM changed WHERE "UpdateFlag" IS DISTINCT FROM 1) THEN
        PERFORM pg_advisory_xact_lock_shared(4711);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER gate AFTER UPDATE ON public.conflictvisitmaps
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION public.gate();
"""

Sql = Callable[..., list[tuple[Any, ...]]]


@dataclass(frozen=True)
class World:
    """The stack, and the time for which its schedule was set."""

    stack: LocalStack
    scheduled: datetime

    def executions(self) -> list[dict[str, Any]]:
        found = self.stack.client("stepfunctions").list_executions(stateMachineArn=self.stack.state_machine_arn)
        listed: list[dict[str, Any]] = found["executions"]
        return listed

    def ended(self, arn: str) -> Mapping[str, Any]:
        """DescribeExecution once the execution has ended."""
        states = self.stack.client("stepfunctions")
        assert wait_until(lambda: states.describe_execution(executionArn=arn)["status"] != "RUNNING", 180)
        description: Mapping[str, Any] = states.describe_execution(executionArn=arn)
        return description

    def histories(self, arn: str) -> list[dict[str, Any]]:
        """All events of an execution and of its children."""
        states = self.stack.client("stepfunctions")
        arns = [arn]
        for run in states.list_map_runs(executionArn=arn)["mapRuns"]:
            children = states.list_executions(mapRunArn=run["mapRunArn"])["executions"]
            arns += [child["executionArn"] for child in children]
        return [event for each in arns for event in states.get_execution_history(executionArn=each)["events"]]

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """Key → content of the bucket's objects."""
        s3 = self.stack.client("s3")
        listed = s3.list_objects_v2(Bucket=self.stack.bucket, Prefix=prefix).get("Contents", [])
        keys = [item["Key"] for item in listed]
        return {key: s3.get_object(Bucket=self.stack.bucket, Key=key)["Body"].read() for key in keys}


@pytest.fixture(scope="module")
def dsn(postgres: Postgres) -> Iterator[str]:
    """A database with the pack's data, in which one caregiver has an SSN that must not be seen anywhere else."""
    name = "run_job"
    created = postgres.create_database(name)
    generate(created, Size(ROWS, canary=CANARY))
    yield created
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def world(dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The deployed template; its schedule fires once, five seconds later, which are five minutes of its clock."""
    scheduled = (datetime.now(UTC) + timedelta(minutes=5)).replace(microsecond=0)
    parameters = {"ScheduleState": "ENABLED", "ScheduleExpression": f"at({scheduled:%Y-%m-%dT%H:%M:%S})"}
    data = tmp_path_factory.mktemp("stack")
    with LocalStack(data_dir=data, dsn=dsn, clock_speed=60.0, parameters=parameters) as stack:
        yield World(stack, scheduled)


@pytest.fixture(scope="module")
def scheduled(world: World) -> Mapping[str, Any]:
    """The execution that the schedule started, at its end."""
    assert wait_until(world.executions, 60)
    (execution,) = world.executions()
    return world.ended(execution["executionArn"])


@pytest.fixture
def sql(dsn: str) -> Iterator[Sql]:
    """Runs a statement, committed; gives its rows."""
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True

        def run(statement: str, *values: object) -> list[tuple[Any, ...]]:
            with connection.cursor() as cursor:
                cursor.execute(statement, values or None)
                return cursor.fetchall() if cursor.description else []

        yield run


@pytest.fixture
def aws(world: World, tmp_path: Path) -> Callable[..., Any]:
    """The stock `aws` command, pointed at the stack by nothing but the environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {**world.stack.env(), "AWS_CONFIG_FILE": os.devnull, "HOME": str(tmp_path)}

    def run(*arguments: str) -> Any:
        command = [str(Path(sys.executable).with_name("aws")), "--output", "json", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.startswith(("{", "[")) else done.stdout

    return run


def every_row_once(sql: Sql, run_id: int) -> None:
    """Each eligible row carries the run's stamp, none the flag, and the ledger counted each of them once."""
    (stamped,) = sql(
        'SELECT count(*) FROM public.conflictvisitmaps JOIN sluice.run ON "UpdatedDate" = run_ts WHERE run_id = %s',
        run_id,
    )
    (counted,) = sql(
        "SELECT sum(rows_updated)::bigint FROM sluice.chunk JOIN sluice.step USING (run_id, step_no) "
        "WHERE run_id = %s AND kind = 'update'",
        run_id,
    )
    (eligible,) = sql(
        """SELECT count(*) FROM public.conflictvisitmaps WHERE coalesce("VisitDate" >= '2025-01-01', true)"""
    )
    assert stamped == counted == eligible
    assert sql('SELECT count(*) FROM public.conflictvisitmaps WHERE "UpdateFlag" = 1') == [(0,)]


def test_schedule_starts_a_run_named_by_the_time_it_was_set_for(
    world: World, scheduled: Mapping[str, Any], sql: Sql
) -> None:
    run_key = f"{world.scheduled:%Y-%m-%dT%H:%M:%SZ}"
    assert json.loads(scheduled["input"]) == {"job": JOB, "run_key": run_key}
    assert scheduled["status"] == "SUCCEEDED", scheduled
    output = json.loads(scheduled["output"])
    assert (output["state"], output["error"]) == ("succeeded", "")
    assert sql("SELECT run_key, state::text FROM sluice.run WHERE run_id = %s", output["run_id"]) == [
        (run_key, "succeeded")
    ]
    every_row_once(sql, output["run_id"])


def test_manifests_hold_numbers_alone(world: World, scheduled: Mapping[str, Any], sql: Sql) -> None:
    run_id = json.loads(scheduled["output"])["run_id"]
    found = world.objects(f"runs/{run_id}/")
    manifests = {key: json.loads(body) for key, body in found.items() if re.search(r"/round-\d+\.json$", key)}
    steps = {key.split("/")[2] for key in manifests}
    assert steps == {"copy_to_temp", "update_conflicts", "expect"}
    for items in manifests.values():
        assert items
        assert all(item.keys() == {"chunk", "rows"} for item in items)
        assert all(isinstance(value, int) for item in items for value in item.values())
    planned = sql(
        "SELECT chunk_no FROM sluice.chunk JOIN sluice.step USING (run_id, step_no) "
        "WHERE run_id = %s AND name = 'update_conflicts' ORDER BY 1",
        run_id,
    )
    first = next(items for key, items in manifests.items() if "/update_conflicts/" in key)
    assert [item["chunk"] for item in first] == [number for (number,) in planned]
    assert len(first) == CHUNKS


def test_planted_ssn_is_in_no_object_and_no_history(world: World, scheduled: Mapping[str, Any], sql: Sql) -> None:
    assert sql('SELECT count(*) > 0 FROM public.conflictvisitmaps WHERE "SSN" = %s', CANARY) == [(True,)]
    assert CANARY not in json.dumps(world.histories(scheduled["executionArn"]), default=str)
    assert not [key for key, body in world.objects().items() if CANARY.encode() in body]
    logs = [world.stack.pool.log_path(function.name) for function in world.stack.pool.functions()]
    assert not [path.name for path in logs if CANARY in path.read_text()]


def test_stock_aws_command_runs_the_job(
    world: World, scheduled: Mapping[str, Any], aws: Callable[..., Any], sql: Sql, tmp_path: Path
) -> None:
    request = json.dumps({"job": JOB, "run_key": "by hand", "params": {"travel_mph": 25}})
    machine = world.stack.state_machine_arn
    started = aws("stepfunctions", "start-execution", "--state-machine-arn", machine, "--input", request)
    arn = started["executionArn"]
    world.ended(arn)
    described = aws("stepfunctions", "describe-execution", "--execution-arn", arn)
    assert described["status"] == "SUCCEEDED", described
    output = json.loads(described["output"])
    every_row_once(sql, output["run_id"])
    events = aws("stepfunctions", "get-execution-history", "--execution-arn", arn)["events"]
    entered = [event["stateEnteredEventDetails"]["name"] for event in events if "stateEnteredEventDetails" in event]
    assert entered[0] == "Validate config"
    assert entered.count("Process chunks") == 3
    assert entered[-3:] == ["Finish run", "Succeeded?", "Run succeeded"]
    listed = aws("s3", "ls", "--recursive", f"s3://{world.stack.bucket}/runs/{output['run_id']}/")
    assert "/update_conflicts/round-1.json" in listed
    assert output["report"].rpartition("/")[2] in listed
    answer = tmp_path / "answer.json"
    payload = json.dumps({"job": JOB, "run_id": output["run_id"]})
    invoked = aws(
        "lambda", "invoke", "--function-name", "sluice-get-chunks", "--payload", payload, str(answer)
    )  # fmt: skip
    assert (invoked["StatusCode"], invoked.get("FunctionError")) == (200, None)
    assert json.loads(answer.read_text())["action"] == "finish"


def test_refused_input_fails_with_the_engine_s_error(world: World, scheduled: Mapping[str, Any]) -> None:
    states = world.stack.client("stepfunctions")
    text = json.dumps({"job": "conflict_report/conflict_reprot", "run_key": "one"})
    arn = states.start_execution(stateMachineArn=world.stack.state_machine_arn, input=text)["executionArn"]
    ended = world.ended(arn)
    assert (ended["status"], ended["error"]) == ("FAILED", "BadInputError")
    assert "did you mean" in json.loads(ended["cause"])["errorMessage"]


def test_workers_killed_between_update_and_commit_are_survived(
    world: World, scheduled: Mapping[str, Any], sql: Sql
) -> None:
    sql(GATE)
    sql("SELECT pg_advisory_lock(4711)")
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory' "
        "AND application_name LIKE 'sluice:%'"
    )
    states = world.stack.client("stepfunctions")
    text = json.dumps({"job": JOB, "run_key": "with kills"})
    arn = states.start_execution(stateMachineArn=world.stack.state_machine_arn, input=text)["executionArn"]
    try:
        assert wait_until(lambda: sql(waiting)[0][0] >= 1, 120)
        for pid in world.stack.pool.worker_pids([WORKERS]):
            os.kill(pid, signal.SIGKILL)
    finally:
        sql("SELECT pg_advisory_unlock(4711)")
    ended = world.ended(arn)
    assert ended["status"] == "SUCCEEDED", ended
    output = json.loads(ended["output"])
    assert output["state"] == "succeeded"
    failed = [event["taskFailedEventDetails"] for event in world.histories(arn) if "taskFailedEventDetails" in event]
    assert "Runtime.ExitError" in {details["error"] for details in failed}
    assert sql("SELECT count(*) > 0 FROM sluice.attempt WHERE run_id = %s AND outcome = 'lost'", output["run_id"]) == [
        (True,)
    ]
    every_row_once(sql, output["run_id"])
    sql("DROP TRIGGER gate ON public.conflictvisitmaps; DROP FUNCTION public.gate")
