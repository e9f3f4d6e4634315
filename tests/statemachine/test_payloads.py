"""What the functions answer stays small, whatever the job and the database have to say."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from sluice.attempts import Outcome
from sluice.context import Context
from sluice.ledger import Run
from sluice.run import Opened, Round
from tests.statemachine.production import ROOT
from tests.statemachine.scripted import RunJob

LIMIT = 1024
# The longest that the job file's models, S3 and Step Functions let through, and text without any end.
JOB = f"{'p' * 60}/{'j' * 60}"
STEP = "s" * 60
BUCKET = "b" * 63
RUN_ID = 2**63 - 1
CHUNK = 2**31 - 1
ENDLESS = 'ä"\\' * 5000
ERROR_NAME = "E" * 256
REPORT = f"s3://{BUCKET}/runs/{RUN_ID}/report.html"

Handler = Callable[..., Mapping[str, Any]]


def run_of(state: str) -> Run:
    now = datetime.now(UTC)
    return Run(RUN_ID, JOB, ENDLESS, now, 9, {}, "0" * 64, state, "run", ENDLESS, now, now, ERROR_NAME, ENDLESS, REPORT)


@pytest.fixture
def function() -> Iterator[Callable[[str], tuple[ModuleType, Handler]]]:
    """Loads a function's module: the module, and its handler without the decorators."""
    loaded = []

    def load(name: str) -> tuple[ModuleType, Handler]:
        path: Path = ROOT / "functions" / name / "app.py"
        spec = importlib.util.spec_from_file_location(f"function_{name}", path)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        # Dataclasses look their module up.
        sys.modules[spec.name] = module
        loaded.append(spec.name)
        spec.loader.exec_module(module)
        handler = module.lambda_handler
        while hasattr(handler, "__wrapped__"):
            handler = handler.__wrapped__
        return module, handler

    yield load
    for name in loaded:
        del sys.modules[name]


@pytest.fixture
def answers(function: Callable[[str], tuple[ModuleType, Handler]], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The longest answer of each function."""
    spec = SimpleNamespace(max_concurrency=1000)
    context: Context = SimpleNamespace(job=SimpleNamespace(name=JOB, spec=spec))  # type: ignore[assignment]
    event = SimpleNamespace(job=JOB, run_id=RUN_ID, step=STEP, chunk=CHUNK, run_key=ENDLESS, params={}, error=None)
    chunks = [(number, 50_000) for number in range(10_000)]
    verbs: dict[str, tuple[str, Any]] = {
        "validate_config": ("open_run", Opened(run_of("succeeded_with_drift"), True, [ENDLESS])),
        "get_chunks": ("plan_round", Round("work", STEP, "snapshot", CHUNK, chunks, 300, ENDLESS)),
        "process_chunk": ("work_chunk", Outcome("quarantined", 2**63 - 1, ENDLESS)),
        "finish_run": ("finish_run", run_of("succeeded_with_drift")),
    }
    found = {}
    for name, (verb, result) in verbs.items():
        module, handler = function(name)
        monkeypatch.setattr(module, verb, lambda *arguments, result=result: result)
        if name == "get_chunks":
            key = f"runs/{RUN_ID}/{STEP}/round-{CHUNK}.json"
            monkeypatch.setattr(module, "settings", lambda: SimpleNamespace(bucket=BUCKET))
            monkeypatch.setattr(module, "write_manifest", lambda *arguments, key=key: key)
        found[name] = dict(handler(event, context))
    return found


def size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


def test_answers_are_below_a_kibibyte(answers: dict[str, Any]) -> None:
    assert {name: size(answer) for name, answer in answers.items() if size(answer) >= LIMIT} == {}
    assert json.loads(json.dumps(answers)) == answers


def test_answers_are_flat(answers: dict[str, Any]) -> None:
    for answer in answers.values():
        assert all(isinstance(value, str | int | bool) for value in answer.values())


def test_no_state_s_data_grows_beyond_what_a_function_answers(run_job: RunJob, answers: dict[str, Any]) -> None:
    planned = answers["get_chunks"]
    manifest = [{"chunk": CHUNK - number, "rows": 50_000} for number in range(20)]
    run_job.world.s3.objects[BUCKET, planned["key"]] = json.dumps(manifest).encode()
    run_job.script("ValidateConfig", answers["validate_config"])
    run_job.script("GetChunks", {**planned, "kind": "update"}, {**planned, "action": "finish", "reason": ""})
    run_job.script("ProcessChunk", answers["process_chunk"])
    run_job.script("FinishRun", answers["finish_run"])
    ended = run_job.run({"job": JOB, "run_key": "k" * 60})
    assert ended.status == "SUCCEEDED", ended.description
    arns = [ended.arn, *(child["executionArn"] for child in run_job.children(ended))]
    assert len(arns) == 21
    data = [
        details[member]
        for arn in arns
        for event in run_job.world.history(arn)
        for kind, details in event.items()
        if kind.endswith(("StateEnteredEventDetails", "StateExitedEventDetails", "EnteredEventDetails"))
        for member in ("input", "output")
        if member in details
    ]
    assert data
    assert max(len(text.encode()) for text in data) < LIMIT
