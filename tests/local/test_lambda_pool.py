"""Every way in which a Lambda function can end, with the real runtime client in real processes."""

from __future__ import annotations

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from infra.local import lambda_pool
from infra.local.lambda_function import Function, assemble_opt
from infra.local.lambda_invocation import FunctionNotFoundError, InvocationResult, TooManyRequestsError
from infra.local.lambda_pool import LambdaPool
from infra.local.processes import is_alive, wait_until
from infra.local.runtime_api import _Handler

MakePool = Callable[..., LambdaPool]


@pytest.fixture
def echo(application: Path, tmp_path: Path) -> Function:
    """The function that does what its event says."""
    opt = tmp_path / "opt"
    assemble_opt(opt, [application / "layers" / "engine", application / "sql"])
    return Function(
        name="echo",
        arn="arn:aws:lambda:us-east-1:123456789012:function:echo",
        handler="app.lambda_handler",
        code=application / "functions" / "echo_event",
        opt=opt,
        timeout=30,
    )


@pytest.fixture
def make_pool(tmp_path: Path) -> Iterator[MakePool]:
    """Build pools that are closed at the end."""
    pools: list[LambdaPool] = []

    def make(*functions: Function, **options: Any) -> LambdaPool:
        pool = LambdaPool(tmp_path / "logs", **options)
        pools.append(pool)
        for function in functions:
            pool.add(function)
        return pool

    yield make
    for pool in pools:
        pool.close()


def call(pool: LambdaPool, name: str = "echo", **event: Any) -> tuple[Any, InvocationResult]:
    result = pool.invoke(name, json.dumps(event).encode())
    return json.loads(result.payload), result


def test_handler_gets_event_context_and_environment_of_a_lambda(make_pool: MakePool, echo: Function) -> None:
    function = replace(
        echo, memory=512, environment={"SQL_ROOT": "/opt", "PACKS": "/opt/packs", "NOT_OURS": "/optimum"},
        endpoint_url="http://127.0.0.1:1", region="eu-west-1",
    )  # fmt: skip
    answer, result = call(make_pool(function), mode="plain")
    assert result.function_error is None
    assert answer["echo"] == {"mode": "plain"}
    assert answer["layer"] == "engine layer"
    assert answer["arn"] == function.arn
    assert 0 < answer["remaining"] <= 30_000
    assert answer["cwd"] == str(function.code)
    assert answer["path"][0] == str(function.code)
    environment = answer["environment"]
    assert environment["SQL_ROOT"] == str(function.opt)
    assert environment["PACKS"] == f"{function.opt}/packs"
    assert environment["NOT_OURS"] == "/optimum"
    assert (Path(environment["PACKS"]) / "one.sql").exists()
    assert environment["AWS_LAMBDA_FUNCTION_NAME"] == "echo"
    assert environment["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "512"
    assert environment["AWS_REGION"] == environment["AWS_DEFAULT_REGION"] == "eu-west-1"
    assert environment["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"
    assert environment["LAMBDA_TASK_ROOT"] == str(function.code)
    assert environment["_HANDLER"] == "app.lambda_handler"
    assert environment["AWS_SHARED_CREDENTIALS_FILE"] == os.devnull


def test_developer_s_own_environment_does_not_reach_a_function(
    make_pool: MakePool, echo: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("PGPASSWORD", "secret")
    answer, _ = call(make_pool(echo))
    assert "AWS_PROFILE" not in answer["environment"]
    assert "PGPASSWORD" not in answer["environment"]


def test_raised_error_keeps_its_class_name_and_the_worker(make_pool: MakePool, echo: Function) -> None:
    pool = make_pool(echo)
    first, _ = call(pool)
    answer, result = call(pool, mode="raise", message="no such table")
    assert result.function_error == "Unhandled"
    assert answer["errorType"] == "BadInputError"
    assert answer["errorMessage"] == "no such table"
    assert any("raise BadInputError" in line for line in answer["stackTrace"])
    after, _ = call(pool)
    assert after["pid"] == first["pid"]
    assert after["loaded_at"] == first["loaded_at"]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"mode": "exit", "code": 3}, "Runtime exited with error: exit status 3"),
        ({"mode": "exit", "code": 0}, "Runtime exited without providing a reason"),
        ({"mode": "kill"}, "Runtime exited with error: signal: killed"),
    ],
)
def test_worker_that_dies_is_an_exit_error_and_is_replaced(
    make_pool: MakePool, echo: Function, event: dict[str, Any], reason: str
) -> None:
    pool = make_pool(echo)
    answer, result = call(pool, **event)
    assert result.function_error == "Unhandled"
    assert answer == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {result.request_id} Error: {reason}",
    }
    assert call(pool)[1].function_error is None


def test_function_that_takes_too_long_is_killed(make_pool: MakePool, echo: Function) -> None:
    pool = make_pool(replace(echo, timeout=0.5))
    before, _ = call(pool)
    answer, result = call(pool, mode="sleep", seconds=600)
    assert result.function_error == "Unhandled"
    assert answer == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": f"RequestId: {result.request_id} Error: Task timed out after 0.50 seconds",
    }
    assert b"Task timed out after 0.50 seconds" in result.log
    assert b"Status: timeout" in result.log
    assert wait_until(lambda: not is_alive(before["pid"]), 10)
    assert call(pool)[0]["pid"] != before["pid"]


def test_worker_frozen_at_work_is_killed_by_the_timeout(make_pool: MakePool, echo: Function) -> None:
    pool = make_pool(replace(echo, timeout=1.0))
    worker = call(pool)[0]["pid"]
    log = pool.log_path("echo")
    with ThreadPoolExecutor(1) as executor:
        busy = executor.submit(call, pool, mode="sleep", seconds=600)
        assert wait_until(lambda: log.read_text().count("handling") == 2, 20)
        os.kill(worker, signal.SIGSTOP)
        assert busy.result()[0]["errorType"] == "Sandbox.Timedout"
    assert wait_until(lambda: not is_alive(worker), 10)


def test_worker_frozen_between_invocations_is_replaced(
    make_pool: MakePool, echo: Function, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lambda_pool, "STALLED_SECONDS", 0.5)
    (tmp_path / "app.py").write_text(
        "import os, signal, pathlib\n"
        "seen = pathlib.Path(__file__).with_name('seen')\n"
        "if not seen.exists():\n"
        "    seen.touch(); os.kill(os.getpid(), signal.SIGSTOP)\n"
        "def lambda_handler(event, context): return 'second worker'\n"
    )
    pool = make_pool(replace(echo, code=tmp_path), max_workers=1)
    answer, _ = call(pool)
    assert answer["errorType"] == "Runtime.ExitError"
    assert call(pool)[0] == "second worker"


def test_caller_without_patience_leaves_and_the_function_runs_on(make_pool: MakePool, echo: Function) -> None:
    pool = make_pool(echo)
    call(pool)
    event = json.dumps({"mode": "sleep", "seconds": 1.0}).encode()
    with pytest.raises(TimeoutError):
        pool.invoke("echo", event, patience=0.05)
    log = pool.log_path("echo")
    assert wait_until(lambda: len(re.findall("^REPORT", log.read_text(), re.M)) == 2, 20)
    assert "Status" not in log.read_text()


def test_response_above_six_megabytes_is_refused(make_pool: MakePool, echo: Function) -> None:
    pool = make_pool(echo)
    limit = 6 * 1024 * 1024 + 100
    fits, result = call(pool, mode="big", bytes=limit - 2)
    assert result.function_error is None
    assert len(fits) == limit - 2
    answer, result = call(pool, mode="big", bytes=limit - 1)
    assert result.function_error == "Unhandled"
    assert answer["errorType"] == "Function.ResponseSizeTooLarge"
    assert call(pool)[1].function_error is None


def test_module_that_cannot_be_loaded(make_pool: MakePool, echo: Function, application: Path) -> None:
    pool = make_pool(replace(echo, code=application / "functions" / "broken_import"))
    for _ in range(2):
        answer, result = call(pool)
        assert result.function_error == "Unhandled"
        assert answer["errorType"] == "Runtime.ImportModuleError"
        assert "no_such_module" in answer["errorMessage"]


def test_process_that_dies_while_it_loads(make_pool: MakePool, echo: Function, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import os; os._exit(9)")
    answer, _ = call(make_pool(replace(echo, code=tmp_path)))
    assert answer["errorType"] == "Runtime.ExitError"
    assert "exit status 9" in answer["errorMessage"]


def test_reserved_concurrency_refuses_what_is_above_it(make_pool: MakePool, echo: Function) -> None:
    pool = make_pool(replace(echo, reserved_concurrency=1))
    call(pool)
    with ThreadPoolExecutor(1) as executor:
        busy = executor.submit(call, pool, mode="sleep", seconds=1.5)
        log = pool.log_path("echo")
        assert wait_until(lambda: log.read_text().count("START") == 2, 20)
        with pytest.raises(TooManyRequestsError, match="Rate Exceeded"):
            call(pool)
        assert busy.result()[1].function_error is None
    assert call(pool)[1].function_error is None


def test_reserved_concurrency_of_zero_refuses_everything(make_pool: MakePool, echo: Function) -> None:
    with pytest.raises(TooManyRequestsError):
        call(make_pool(replace(echo, reserved_concurrency=0)))


def test_more_callers_than_workers_wait_in_line(make_pool: MakePool, echo: Function) -> None:
    pool = make_pool(echo, max_workers=2)
    with ThreadPoolExecutor(20) as executor:
        answers = list(executor.map(lambda number: call(pool, number=number)[0], range(60)))
    assert [answer["echo"]["number"] for answer in answers] == list(range(60))
    assert 1 <= len({answer["pid"] for answer in answers}) <= 2
    assert len(pool.worker_pids()) <= 2


def test_killed_idle_workers_lose_no_invocation(make_pool: MakePool, echo: Function) -> None:
    pool = make_pool(echo, max_workers=3)
    pool.prewarm("echo", 3)
    assert pool.wait_warm()
    for _ in range(5):
        for pid in pool.worker_pids():
            os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: not pool.worker_pids(), 10)
        assert call(pool)[1].function_error is None


def test_every_invocation_ends_while_workers_are_killed_at_random(make_pool: MakePool, echo: Function) -> None:
    pool = make_pool(echo, max_workers=4)
    dice = random.Random(7)
    done = threading.Event()

    def kill_some() -> int:
        kills = 0
        while not done.wait(0.1):
            for pid in dice.sample(pool.worker_pids(), k=min(1, len(pool.worker_pids()))):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    kills += 1
        return kills

    with ThreadPoolExecutor(9) as executor:
        killer = executor.submit(kill_some)
        calls = [executor.submit(call, pool, mode="sleep", seconds=0.01, number=number) for number in range(800)]
        try:
            answers = [future.result()[0] for future in calls]
        finally:
            done.set()
        assert killer.result() > 3
    for number, answer in enumerate(answers):
        assert answer.get("errorType") == "Runtime.ExitError" or answer["echo"]["number"] == number
    assert sum("echo" in answer for answer in answers) > 400
    assert call(pool)[1].function_error is None


def test_prewarmed_workers_take_the_first_invocations(make_pool: MakePool, echo: Function) -> None:
    pool = make_pool(echo)
    pool.prewarm("echo", 2)
    assert pool.wait_warm()
    warm = set(pool.worker_pids(["echo"]))
    assert len(warm) == 2
    assert call(pool)[0]["pid"] in warm


def test_idle_workers_are_ended(make_pool: MakePool, echo: Function) -> None:
    pool = make_pool(echo, idle_seconds=0.2)
    worker = call(pool)[0]["pid"]
    assert wait_until(lambda: not is_alive(worker), 20)
    assert call(pool)[1].function_error is None


def test_log_has_the_lines_of_cloudwatch_in_order(make_pool: MakePool, echo: Function) -> None:
    pool = make_pool(replace(echo, memory=512))
    _, cold = call(pool, mode="unfinished line")
    _, warm = call(pool, mode="plain")
    lines = cold.log.decode().splitlines()
    assert lines[0] == f"START RequestId: {cold.request_id} Version: $LATEST"
    assert lines[1] == 'handling {"mode": "unfinished line"}'
    assert lines[2] == "no newline at the end"
    assert lines[3] == f"END RequestId: {cold.request_id}"
    report = re.fullmatch(
        rf"REPORT RequestId: {cold.request_id}\tDuration: [\d.]+ ms\tBilled Duration: \d+ ms\tMemory Size: 512 MB"
        r"\tMax Memory Used: (\d+) MB\tInit Duration: [\d.]+ ms",
        lines[4],
    )
    assert report
    assert int(report[1]) > 5
    assert b"Init Duration" not in warm.log
    assert cold.log.decode() + warm.log.decode() == pool.log_path("echo").read_text()


def test_peak_memory_is_what_the_function_used(make_pool: MakePool, echo: Function) -> None:
    _, result = call(make_pool(echo), mode="allocate", bytes=150 << 20)
    found = re.search(rb"Max Memory Used: (\d+) MB", result.log)
    assert found
    assert 150 <= int(found[1]) < 300


def test_functions_are_found_by_name_arn_and_qualifier(make_pool: MakePool, echo: Function) -> None:
    pool = make_pool(echo)
    for name in ("echo", echo.arn, f"{echo.arn}:$LATEST", "echo:$LATEST", "123456789012:function:echo"):
        assert pool.function(name) is echo
    for name in ("other", "", "arn:aws:lambda:us-east-1:123456789012:function:other"):
        with pytest.raises(FunctionNotFoundError):
            pool.function(name)


def test_close_ends_workers_that_are_busy(make_pool: MakePool, echo: Function) -> None:
    pool = make_pool(echo)
    with ThreadPoolExecutor(1) as executor:
        busy = executor.submit(call, pool, mode="sleep", seconds=600)
        log = pool.log_path("echo")
        assert wait_until(lambda: log.exists() and "handling" in log.read_text(), 20)
        pids = pool.worker_pids()
        pool.close()
        assert busy.result()[0]["errorType"] == "Runtime.ExitError"
    assert pids
    assert not any(is_alive(pid) for pid in pids)


def test_workers_die_with_a_parent_that_is_killed(echo: Function, tmp_path: Path) -> None:
    script = f"""
import json, threading
from pathlib import Path
from infra.local.lambda_function import Function
from infra.local.lambda_pool import LambdaPool
pool = LambdaPool(Path({str(tmp_path)!r}))
code, opt = Path({str(echo.code)!r}), Path({str(echo.opt)!r})
pool.add(Function("echo", {echo.arn!r}, {echo.handler!r}, code, opt, timeout=600))
idle = json.loads(pool.invoke("echo", b"{{}}").payload)["pid"]
event = b'{{"mode": "sleep", "seconds": 600}}'
threads = [threading.Thread(target=pool.invoke, args=("echo", event)) for _ in range(2)]
for thread in threads:
    thread.start()
pool.prewarm("echo", 3)
pool.wait_warm()
print(json.dumps(pool.worker_pids()), flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        workers = json.loads(parent.stdout.readline())
        assert len(workers) == 3
        assert all(is_alive(pid) for pid in workers)
        parent.kill()
    assert wait_until(lambda: not any(is_alive(pid) for pid in workers), 20)


def test_opt_merges_folders_of_several_layers(tmp_path: Path) -> None:
    for layer, name in (("one", "a"), ("two", "b")):
        (tmp_path / layer / "python").mkdir(parents=True)
        (tmp_path / layer / "python" / f"{name}.py").write_text(layer)
        (tmp_path / layer / "same.txt").write_text(layer)
    assemble_opt(tmp_path / "opt", [tmp_path / "one", tmp_path / "two"])
    assert sorted(path.name for path in (tmp_path / "opt" / "python").iterdir()) == ["a.py", "b.py"]
    assert (tmp_path / "opt" / "same.txt").read_text() == "two"


@pytest.mark.parametrize(
    "request_text",
    [
        "Content-Length: 20\r\n\r\n{}",
        "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\n{}",
    ],
)
def test_an_answer_that_is_cut_short_is_no_answer(request_text: str) -> None:
    head, _, rest = request_text.partition("\r\n\r\n")
    name, _, value = head.partition(": ")
    handler = _Handler.__new__(_Handler)
    handler.headers = Message()
    handler.headers[name] = value
    handler.rfile = io.BufferedReader(io.BytesIO(rest.encode()))
    assert handler._body() is None
