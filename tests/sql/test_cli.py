"""The `sluice` command as an operator types it, on a real PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
from aws_lambda_powertools.utilities import parameters
from click.testing import CliRunner, Result
from moto import mock_aws

from sluice import operate
from sluice.cli import executions, main
from sluice.cli.app import Commands
from sluice.cli.packs import schema_text
from sluice.deadline import Deadline
from sluice.errors import ChunkBusyError, TransientError
from sluice.finish import finish_run
from sluice.run import open_run, plan_round, work_chunk
from sluice.settings import settings
from tests.connections import facts_of
from tests.sql.conftest import SCHEMA, SELECT

ROOT = Path(__file__).resolve().parents[2]
SLOW = SELECT + ' CROSS JOIN LATERAL pg_sleep(0.01 + 0 * chunk."Minutes") AS nap'
APPLIED = 'SELECT "applied", count(*) FROM public.visits GROUP BY 1 ORDER BY 1'
ROWS = 400


@pytest.fixture
def root(pack, monkeypatch):
    """SLUICE_SQL_ROOT with the ledger and the pack `demo`."""
    folder = pack.parent.parent
    (folder / "ledger").symlink_to(ROOT / "sql" / "ledger")
    monkeypatch.setenv("SLUICE_SQL_ROOT", str(folder))
    for name in ("SLUICE_DSN", "SLUICE_STATE_MACHINE_ARN", "AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(folder)
    settings.cache_clear()
    yield folder
    settings.cache_clear()


@pytest.fixture
def sluice(root, database, monkeypatch):
    """Types a command; gives its exit code, stdout and stderr. An exception that escapes fails the test."""
    monkeypatch.setenv("SLUICE_DSN", database)

    def type_(*words: str) -> Result:
        return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False, prog_name="sluice")

    return type_


@pytest.fixture
def visits(sql_):
    sql_(SCHEMA)
    sql_(
        """INSERT INTO public.visits ("ID", "VisitDate", "SSN", "Minutes")
           SELECT n, date '2025-01-01' + n %% 9, '9' || n %% 40, n %% 300 FROM generate_series(1, %s) AS n""",
        ROWS,
    )
    return sql_


@pytest.fixture
def planned(sluice, visits, database, context_of):
    """A run of the demo job whose chunks are planned and not worked."""
    context = context_of()
    run = open_run(context, "one", {}).run
    plan_round(context, run.run_id)
    return SimpleNamespace(context=context, run_id=run.run_id)


def refused(result: Result, code: int, *words: str) -> None:
    """The command ended with that code, one line on stderr that says these words, and nothing on stdout."""
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("sluice: ") and result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


def test_an_inline_run_from_start_to_report(sluice, visits):
    result = sluice("run", "demo", "--run-key", "one", "--inline", "--threads", "3")
    assert result.exit_code == 0, result.stderr
    assert "succeeded" in result.stdout and "400 of 400 rows (100 %)" in result.stdout
    assert visits(APPLIED) == [(1, ROWS)]
    page = next(Path(".sluice/reports").glob("*/report.html"))
    assert json.loads(page.with_name("report.json").read_text())["run"]["state"] == "succeeded"
    assert visits("SELECT report FROM sluice.run") == [(str(page.absolute()),)]


def test_a_run_that_succeeded_is_left_alone_and_redo_does_all_again(sluice, visits):
    sluice("run", "demo", "--run-key", "one", "--inline")
    again = sluice("run", "demo", "--run-key", "one", "--inline")
    assert again.exit_code == 0 and "nothing is left to do" in again.stderr
    assert visits(APPLIED) == [(1, ROWS)]
    for key in ("one-redo1", "one-redo2"):
        redone = sluice("redo", "demo", "--inline", "--json")
        assert redone.exit_code == 0 and json.loads(redone.stdout)["run_key"] == key
    assert visits(APPLIED) == [(3, ROWS)]


def test_every_json_answer_parses_and_stands_alone_on_stdout(sluice, visits, tmp_path):
    answers = [
        sluice("run", "demo", "--run-key", "one", "--inline", "--json"),
        sluice("status", "--json"),
        sluice("status", "demo", "--json"),
        sluice("watch", "demo", "--json"),
        sluice("chunks", "demo", "--json"),
        sluice("report", "demo", "--json"),
        sluice("jobs", "--json"),
        sluice("schema", "--json"),
        sluice("new", "fresh", "--json"),
        sluice("redo", "1", "--inline", "--json"),
    ]
    for answer in answers:
        assert answer.exit_code == 0, answer.stderr
        json.loads(answer.stdout)
    run, runs, status = (json.loads(answer.stdout) for answer in answers[:3])
    assert (run["state"], run["progress"], run["rows_done"]) == ("succeeded", 100.0, ROWS)
    assert runs == [{key: value for key, value in status.items() if key in runs[0]}]
    assert [step["step"] for step in status["step_status"]] == ["double"] and status["stuck_chunks"] == []


def test_a_run_is_named_by_number_by_job_and_key_or_by_job(sluice, visits):
    for key in ("one", "a:b"):
        sluice("run", "demo", "--run-key", key, "--inline")
    names = ("1", "demo:one", "demo/demo:a:b", "demo")
    keys = [json.loads(sluice("status", name, "--json").stdout)["run_key"] for name in names]
    assert keys == ["one", "one", "a:b", "a:b"]


def test_bad_input_is_one_line_and_exit_code_2(sluice, visits):
    refused(sluice("status"), 2, "there is no ledger", "nothing was run there yet")
    refused(sluice("run", "dmeo", "--run-key", "one", "--inline"), 2, "there is no job 'dmeo'", "demo/demo")
    refused(sluice("run", "demo", "--run-key", "", "--inline"), 2, "run_key is empty")
    refused(sluice("run", "demo", "--run-key", "k", "--param", "facto=1", "--inline"), 2, "did you mean 'factor'")
    refused(sluice("run", "demo", "--run-key", "k", "--param", "factor", "--inline"), 2, "NAME=VALUE")
    refused(sluice("run", "demo", "--run-key", "k", "--param", "factor=x", "--inline"), 2, "takes a integer")
    refused(sluice("run", "demo", "--run-key", "k", "--inline", "--detach"), 2, "--detach")
    refused(sluice("run", "demo", "--run-key", "k"), 2, "SLUICE_STATE_MACHINE_ARN", "--inline")
    refused(sluice("run", "demo", "--run-key", "k", "--dsn", "nonsense"), 2, "--dsn", "postgresql://")
    assert visits("SELECT to_regclass('sluice.run')") == [(None,)]
    sluice("run", "demo", "--run-key", "one", "--inline")
    refused(sluice("status", "77"), 2, "there is no run 77")
    refused(sluice("status", "demo:two"), 2, "has no run 'two'", "one")
    refused(sluice("chunks", "1", "--step", "duoble"), 2, "did you mean 'double'")
    refused(sluice("retry", "1", "double", "9"), 2, "succeeded")
    refused(sluice("pause", "1"), 2, "has ended: succeeded")
    refused(sluice("new", "Bad-Name"), 2, "cannot name a pack")
    refused(sluice("new", "demo"), 2, "there is a pack 'demo' already")


def test_an_unreachable_database_is_exit_code_1(sluice):
    refused(sluice("status", "1", "--dsn", "postgresql://me:geheim@127.0.0.1:1/none"), 1, "127.0.0.1:1/none", "refused")
    refused(sluice("run", "demo", "--run-key", "k", "--inline", "--dsn", "postgresql://me:geheim@127.0.0.1:1/none"), 1)


def test_a_wrong_password_is_bad_input_and_is_not_shown(sluice, database):
    facts = facts_of(database)
    dsn = f"target=postgresql://postgres:falsch@{facts['host']}:{facts['port']}/{facts['dbname']}"
    result = sluice("status", "demo", "--dsn", dsn)
    refused(result, 2, "the password was refused")
    assert "falsch" not in result.stderr


def test_the_secret_of_the_job_is_used_where_no_dsn_is_given(root, sluice, visits, database, monkeypatch):
    for name, value in {"ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.delenv("SLUICE_DSN")
    parameters.clear_caches()
    with mock_aws():
        refused(sluice("status", "demo"), 2, "secret 'sluice/target' cannot be read", "SLUICE_DSN")
        client = boto3.client("secretsmanager")
        client.create_secret(Name="sluice/target", SecretString="{}")
        refused(sluice("status", "demo"), 2, "secret 'sluice/target' lacks host, username, password, dbname")
        client.put_secret_value(SecretId="sluice/target", SecretString=json.dumps(facts_of(database)))
        parameters.clear_caches()
        assert sluice("run", "demo", "--run-key", "one", "--inline").exit_code == 0
        assert json.loads(sluice("status", "1", "--json").stdout)["state"] == "succeeded"
    parameters.clear_caches()


def test_without_a_region_the_secret_names_the_way_without_aws(root, sluice, monkeypatch):
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "SLUICE_DSN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    parameters.clear_caches()
    refused(sluice("status", "demo"), 2, "region", "SLUICE_DSN")


def test_pause_resume_cancel(sluice, planned, visits):
    paused = sluice("pause", "demo", "--reason", "month end")
    assert paused.exit_code == 0 and "month end" in paused.stdout
    assert json.loads(sluice("status", "1", "--json").stdout)["state"] == "paused"
    stopped = sluice("run", "demo", "--run-key", "one", "--inline")
    assert stopped.exit_code == 1 and "is paused: month end; `sluice resume 1` goes on" in stopped.stderr
    freed = sluice("resume", "demo")
    assert freed.exit_code == 0 and "sluice run demo/demo --run-key one" in freed.stdout
    cancelled = sluice("cancel", "1", "--reason", "wrong day", "--json")
    assert (cancelled.exit_code, json.loads(cancelled.stdout)["state"]) == (0, "cancelled")
    refused(sluice("run", "demo", "--run-key", "one", "--inline"), 2, "was cancelled")
    watched = sluice("watch", "1")
    assert watched.exit_code == 1 and watched.stderr == "sluice: run 1 was cancelled: wrong day\n"
    assert visits(APPLIED) == [(0, ROWS)]
    assert sluice("resume", "1", "--inline").exit_code == 0
    assert visits(APPLIED) == [(1, ROWS)]


def test_reset_takes_back_what_is_not_done(sluice, planned, visits):
    work_chunk(planned.context, planned.run_id, "double", 1)
    before = visits(APPLIED)
    reset = sluice("reset", "1", "--reason", "by hand")
    assert reset.exit_code == 0 and "generation 2" in reset.stdout
    assert visits(APPLIED) == before
    assert sluice("run", "demo", "--run-key", "one", "--inline").exit_code == 0
    assert visits(APPLIED) == [(1, ROWS)]


def test_split_skip_and_retry_of_a_chunk(sluice, planned, visits):
    split = json.loads(sluice("split", "1", "double", "1", "--json").stdout)
    assert split["state"] == "split" and [part["parent_no"] for part in split["parts"]] == [1, 1]
    assert "into" in sluice("split", "1", "double", "2").stdout
    skipped = sluice("skip", "1", "double", "3", "--reason", "known bad", "--json")
    assert json.loads(skipped.stdout)["last_error"] == "known bad"
    refused(sluice("retry", "1", "double", "3"), 2, "chunk 3 is skipped: it must be quarantined")
    refused(sluice("retry", "1", "double", "999"), 2, "has no chunk 999")
    refused(sluice("split", "1", "duoble", "1"), 2, "has no step 'duoble'")
    ended = sluice("run", "demo", "--run-key", "one", "--inline", "--json")
    assert (ended.exit_code, json.loads(ended.stdout)["state"]) == (0, "succeeded_with_drift")
    listed = json.loads(sluice("chunks", "1", "--state", "skipped", "--json").stdout)
    assert [chunk["chunk_no"] for chunk in listed] == [3]


def test_a_run_that_fails_shows_what_does_not_get_on(sluice, pack, visits):
    (pack / "double.sql").write_text(
        SELECT.replace('chunk."Minutes" * 2', """CASE WHEN chunk."ID" = 7 THEN 1 / (chunk."ID" - 7) ELSE 4 END""")
    )
    job = (pack / "demo.job.yaml").read_text()
    (pack / "demo.job.yaml").write_text(job + "attempts: {max_failures: 1}\n")
    failed = sluice("run", "demo", "--run-key", "one", "--inline")
    assert failed.exit_code == 1 and "ChunksQuarantined" in failed.stdout
    stuck = json.loads(sluice("status", "demo", "--json").stdout)["stuck_chunks"]
    assert [row["reason"] for row in stuck] == ["quarantined"]
    assert "22012" in stuck[0]["last_error"]
    text = sluice("status", "demo").stdout
    assert "chunks that do not get on" in text and "set aside" in text
    quarantined = json.loads(sluice("chunks", "demo", "--state", "quarantined", "--json").stdout)
    retried = sluice("retry", "demo", "double", quarantined[0]["chunk_no"])
    assert retried.exit_code == 0 and "sluice run demo/demo --run-key one" in retried.stdout
    (pack / "double.sql").write_text(SELECT)
    refused(sluice("run", "demo", "--run-key", "one", "--inline"), 2, "--accept-changes")
    assert sluice("run", "demo", "--run-key", "one", "--inline", "--accept-changes").exit_code == 0
    assert visits(APPLIED) == [(1, ROWS)]


def test_transient_errors_are_tried_again_within_the_round(sluice, visits, monkeypatch):
    from sluice.cli import inline

    quick = [replace(retry, first_seconds=0.001) for retry in inline.CHUNK_RETRIES]
    monkeypatch.setattr(inline, "CHUNK_RETRIES", quick)
    failures = iter([ChunkBusyError(), TransientError("deadlock", sqlstate="40P01")])

    def stumbling(*arguments):
        for failure in failures:
            raise failure
        return work_chunk(*arguments)

    monkeypatch.setattr(inline, "work_chunk", stumbling)
    assert sluice("run", "demo", "--run-key", "one", "--inline").exit_code == 0
    assert visits("SELECT rounds FROM sluice.step") == [(1,)]


def test_an_error_of_the_program_ends_the_run_and_is_named_without_its_text(sluice, visits, monkeypatch):
    from sluice.cli import inline

    def broken(*arguments):
        raise KeyError("123-45-6789")

    monkeypatch.setattr(inline, "work_chunk", broken)
    result = sluice("run", "demo", "--run-key", "one", "--inline")
    assert result.exit_code == 1 and "unexpected KeyError at test_cli.py" in result.stdout
    assert "123-45" not in result.output


def command_line(*words):
    """A process of its own, so that it can be interrupted."""
    return subprocess.Popen(
        [sys.executable, "-c", "from sluice.cli import main; main()", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(condition, seconds=60.0):
    deadline = Deadline.after(seconds)
    while not condition():
        assert deadline.seconds_left() > 0
        threading.Event().wait(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_inline_run_rolls_back_and_is_resumed(sluice, pack, visits, number):
    (pack / "double.sql").write_text(SLOW)
    process = command_line("run", "demo", "--run-key", "one", "--inline", "--threads", "2")
    applying = "SELECT 1 FROM pg_stat_activity WHERE application_name ~ '^sluice:1:1:' AND wait_event = 'PgSleep'"
    until(lambda: process.poll() is not None or visits(applying))
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stdout + stderr
    assert "run 1 is stopped; the same command goes on with it" in stderr and "Traceback" not in stderr
    assert visits("SELECT 1 FROM sluice.attempt WHERE ended_at IS NULL") == []
    assert visits("SELECT 1 FROM sluice.attempt WHERE outcome NOT IN ('done', 'stopped')") == []
    assert visits("SELECT sum(failures + timeouts + transients) FROM sluice.chunk") == [(0,)]
    assert visits("SELECT 1 FROM pg_stat_activity WHERE application_name ~ '^sluice' AND state <> 'idle'") == []
    assert visits('SELECT count(*) FROM public.visits WHERE "applied" = 0')[0][0] > 0
    (pack / "double.sql").write_text(SELECT)
    resumed = sluice("run", "demo", "--run-key", "one", "--inline", "--accept-changes")
    assert resumed.exit_code == 0 and "run 1 is taken up again" in resumed.stderr
    assert visits(APPLIED) == [(1, ROWS)]


def test_ctrl_c_detaches_from_watch(sluice, planned):
    process = command_line("watch", "demo")
    assert process.stdout is not None
    assert "demo/demo:one" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr == "sluice: the run goes on without being watched; `sluice watch 1` shows it again\n"


class StepFunctions:
    """Stands in for the service: works the run with the same verbs before it answers."""

    def __init__(self, make_context, error=None):
        self.make_context, self.error = make_context, error
        self.started = []

    def start_execution(self, **request):
        self.started.append(request)
        event = json.loads(request["input"])
        if self.error is None:
            context = self.make_context()
            run_id = open_run(context, event["run_key"], event.get("params", {})).run.run_id
            while (planned := plan_round(context, run_id)).action == "work":
                for number, _ in planned.chunks:
                    work_chunk(context, run_id, planned.step, number)
            finish_run(context, run_id)
        return {"executionArn": f"arn:execution:{request['name']}"}

    def describe_execution(self, executionArn):
        if self.error is None:
            return {"status": "SUCCEEDED", "output": '{"run_id": 1, "state": "succeeded"}'}
        return {"status": "FAILED", "error": self.error, "cause": json.dumps({"errorMessage": "so it is"})}


@pytest.fixture
def step_functions(sluice, monkeypatch, context_of):
    monkeypatch.setenv("SLUICE_STATE_MACHINE_ARN", "arn:machine")
    settings.cache_clear()
    service = StepFunctions(context_of)
    monkeypatch.setattr(executions, "client", lambda: service)
    return service


def test_a_run_through_step_functions(sluice, visits, step_functions):
    result = sluice("run", "demo", "--run-key", "2025-01-31/a", "--param", "factor=3")
    assert result.exit_code == 0 and "400 of 400 rows" in result.stdout
    (request,) = step_functions.started
    assert request["stateMachineArn"] == "arn:machine" and request["name"].startswith("demo-2025-01-31-a-")
    assert json.loads(request["input"]) == {"job": "demo/demo", "run_key": "2025-01-31/a", "params": {"factor": 3}}
    again = sluice("run", "demo", "--run-key", "2025-01-31/a", "--param", "factor=3", "--json")
    assert json.loads(again.stdout)["state"] == "succeeded"
    assert len({request["name"] for request in step_functions.started}) == 2
    detached = sluice("run", "demo", "--run-key", "other", "--detach", "--json")
    assert json.loads(detached.stdout)["execution_arn"].startswith("arn:execution:demo-other-")


@pytest.mark.parametrize(
    ("error", "code"), [("TargetBusyError", 2), ("BadInputError", 2), ("StatementError", 1), ("", 1)]
)
def test_an_execution_that_fails_ends_the_command_by_its_error(sluice, visits, step_functions, error, code):
    step_functions.error = error
    result = sluice("run", "demo", "--run-key", "one")
    assert result.exit_code == code and result.stderr.endswith("sluice: so it is\n")


def test_an_execution_with_a_long_key_has_a_legal_name():
    name = executions.execution_name("pack/job", "k" * 100)
    assert len(name) == 80 and name.startswith("job-kkk")


def test_accepted_changes_reach_the_run_before_its_execution(sluice, pack, planned, step_functions):
    (pack / "double.sql").write_text(SELECT + " ")
    assert sluice("run", "demo", "--run-key", "one", "--accept-changes").exit_code == 0


def test_an_execution_is_followed_to_its_end_where_the_ledger_cannot_be_read(sluice, visits, step_functions):
    unreachable = "--dsn=postgresql://me@127.0.0.1:1/none"
    result = sluice("run", "demo", "--run-key", "one", unreachable)
    assert result.exit_code == 0 and result.stdout == "run 1 has succeeded\n"
    assert result.stderr.count("the ledger cannot be read just now") == 1
    assert json.loads(sluice("run", "demo", "--run-key", "one", unreachable, "--json").stdout)["state"] == "succeeded"


def test_a_number_that_several_ledgers_have_needs_the_job(sluice, planned, root, database, monkeypatch):
    other = root / "packs" / "other"
    other.mkdir()
    (other / "double.sql").write_text(SELECT)
    text = (root / "packs" / "demo" / "demo.job.yaml").read_text()
    (other / "other.job.yaml").write_text(text.replace("job: demo", "job: other").replace("target: {", "elsewhere: {"))
    monkeypatch.delenv("SLUICE_DSN")
    same = (f"--dsn=target={database}", f"--dsn=elsewhere={database}")
    assert sluice("status", "1", *same).exit_code == 0
    two = (same[0], f"--dsn=elsewhere={database.replace('127.0.0.1', 'localhost')}")
    refused(sluice("status", "1", *two), 2, "several ledgers have a run 1", "--job demo/demo")
    assert sluice("status", "1", *two, "--job", "demo").exit_code == 0
    refused(sluice("status", "9", *two), 2, "there is no run 9")
    assert len(json.loads(sluice("status", *two, "--json").stdout)) == 2


def test_the_schema_in_the_repository_is_current(sluice):
    assert (ROOT / "sql" / "packs" / "job.schema.json").read_text() == schema_text() == sluice("schema").stdout


def test_a_new_pack_runs_as_it_is(sluice, root, sql_):
    made = sluice("new", "orders", "--secret", "my/secret")
    assert made.exit_code == 0 and "sluice run orders --run-key first --inline" in made.stdout
    job_file = (root / "packs" / "orders" / "orders.job.yaml").read_text()
    assert job_file.startswith("# yaml-language-server: $schema=../job.schema.json\n") and "my/secret" in job_file
    assert (root / "packs" / "job.schema.json").is_file()
    result = sluice("run", "orders", "--run-key", "first", "--inline", "--json")
    assert result.exit_code == 0, result.output
    run = json.loads(result.stdout)
    assert (run["state"], run["rows_done"], run["rows_late"]) == ("succeeded", 3000, 0)
    assert sql_("SELECT count(*) FROM public.orders_orders WHERE total IS NULL OR update_flag IS NOT NULL") == [(0,)]
    assert "__" not in job_file + (root / "packs" / "orders" / "README.md").read_text()


def test_plan_tells_what_a_run_would_do_and_changes_nothing(sluice, visits):
    shown = sluice("plan", "demo", "--explain")
    assert shown.exit_code == 0 and "double" in shown.stdout and "forecast" in shown.stdout
    assert "ModifyTable visits" in shown.stdout
    found = json.loads(sluice("plan", "demo", "--json", "--param", "factor=5").stdout)
    assert found["params"] == {"factor": 5} and found["steps"][0]["rows"] == ROWS
    assert "tried" in sluice("plan", "demo", "--no-rehearsal").stdout
    assert visits("SELECT to_regnamespace('sluice')") == [(None,)]
    assert visits(APPLIED) == [(0, ROWS)]
    refused(sluice("plan", "demo", "--param", "facto=5"), 2, "did you mean 'factor'")


def test_a_failed_check_shows_without_its_rows(sluice, pack, visits):
    (pack / "expect.sql").write_text("""-- all_small
-- nothing is above 100
SELECT "ID", "SSN" FROM public.visits WHERE "Doubled" > 100
""")
    with (pack / "demo.job.yaml").open("a") as job:
        job.write("  - {name: expect, kind: check, file: expect.sql}\n")
    result = sluice("run", "demo", "--run-key", "one", "--inline")
    assert result.exit_code == 1 and "all_small" in result.stdout and "nothing is above 100" in result.stdout
    (finding,) = json.loads(sluice("status", "demo", "--json").stdout)["findings"]
    (count,) = visits('SELECT count(*) FROM public.visits WHERE "Doubled" > 100')[0]
    assert (finding["name"], finding["severity"], finding["row_count"]) == ("all_small", "error", count)
    assert "keys" not in finding


def test_jobs_lists_what_is_wrong_with_a_job_file(sluice, root):
    (root / "packs" / "demo" / "broken.job.yaml").write_text("job: broken\nstpes: []\n")
    broken, demo = json.loads(sluice("jobs", "--json").stdout)
    assert "broken.job.yaml:2: stpes: unknown key, did you mean 'steps'?" in broken["error"]
    assert [step["name"] for step in demo["steps"]] == ["double"]
    assert "did you mean 'steps'" in sluice("jobs").stdout


def test_report_can_be_written_while_the_run_is_under_way(sluice, planned, tmp_path):
    for name in ("r.html", "deep/r.json"):
        assert sluice("report", "demo", "--output", tmp_path / name).stdout == f"{tmp_path / name}\n"
    assert "<html" in (tmp_path / "r.html").read_text()
    assert json.loads((tmp_path / "deep" / "r.json").read_text())["run"]["state"] == "running"


def test_report_opens_in_the_browser(sluice, planned, monkeypatch):
    shown = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    sluice("report", "demo", "--open")
    assert shown == [(Path.cwd() / ".sluice/reports/1-demo-one/report.html").as_uri()]


def test_every_command_explains_itself(sluice):
    assert isinstance(main, Commands)
    for name in main.commands:
        help_ = sluice(name, "--help")
        assert help_.exit_code == 0 and "Usage: sluice" in help_.stdout
        assert "--json" in help_.stdout, name


def test_no_lambda_loads_the_command_line():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import app; "
        "print({'click', 'rich', 'sluice.cli'} & set(sys.modules))"
    )
    for folder in sorted((ROOT / "functions").glob("*/app.py")):
        loaded = subprocess.run(
            [sys.executable, "-c", code, str(folder.parent)], capture_output=True, text=True, check=True
        )
        assert loaded.stdout == "set()\n"


def test_the_ledger_of_a_newer_sluice_is_refused(sluice, planned, visits):
    visits("INSERT INTO sluice.migration (version, name, sha256) VALUES (99, 'later', 'x')")
    refused(sluice("status", "demo"), 2, "version 99", "deploy the newer one")


def test_an_older_ledger_names_the_way_to_upgrade(sluice, planned, visits):
    visits("DELETE FROM sluice.migration WHERE version > 1")
    refused(sluice("status", "demo"), 2, "older than this sluice", "sluice run")


def test_a_chunk_of_a_vanished_worker_shows_in_status(sluice, planned, visits, context_of):
    operate.pause(planned.context, planned.run_id, "look")
    stuck = json.loads(sluice("status", "1", "--json").stdout)["stuck_chunks"]
    assert {row["reason"] for row in stuck} == {"stopped_by_operator"}


def test_the_job_of_a_run_may_be_gone_for_looking_but_not_for_steering(sluice, planned, root):
    (root / "packs" / "demo" / "demo.job.yaml").unlink()
    assert sluice("status", "1").exit_code == 0
    refused(sluice("pause", "1"), 2, "there is no job 'demo/demo'")
