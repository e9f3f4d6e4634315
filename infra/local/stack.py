"""The whole local stack in one process: `with LocalStack() as stack: …`."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from infra.local.cloudwatch import LogForwarder
from infra.local.deploy import Deployer, Deployment, Services
from infra.local.errors import LocalStackError
from infra.local.intrinsics import TemplateError
from infra.local.lambda_api import LambdaApi
from infra.local.lambda_invocation import FunctionNotFoundError, TooManyRequestsError
from infra.local.lambda_pool import MAX_WORKERS, LambdaPool
from infra.local.postgres import Postgres
from infra.local.scheduler import Event, FastClock, Scheduler, TargetError
from infra.local.states.ports import LambdaResult
from infra.local.template import ACCOUNT, load_template

if TYPE_CHECKING:
    from infra.local.front_door import FrontDoor
    from infra.local.states import StateMachineService

REPOSITORY = Path(__file__).resolve().parents[2]
DATABASE = "target"
SECRET_NAME = "sluice/target"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}

# moto keeps its state in module globals.
_only_one = threading.Lock()


class StackRunsError(LocalStackError):
    """A local stack runs in this process already; end it first."""


class LocalStack:
    """PostgreSQL, the functions, the state machine and AWS's services of one template, behind one endpoint.

    `data_dir` keeps PostgreSQL's data between starts (moto's state is not kept) and the logs. `clock_speed` shortens
    waits, retries and the time between schedules. With `dsn` an existing database is the target, and no server is
    started. `durable` False makes a throw-away PostgreSQL faster. `prewarm` starts so many workers a function ahead.
    """

    def __init__(
        self,
        *,
        template: Path = REPOSITORY / "template.yaml",
        data_dir: Path = REPOSITORY / ".sluice",
        clock_speed: float = 1.0,
        parameters: Mapping[str, str] | None = None,
        port: int = 0,
        dsn: str | None = None,
        postgres_port: int | None = None,
        postgres_settings: Mapping[str, str] | None = None,
        durable: bool = True,
        secret_name: str = SECRET_NAME,
        max_workers: int = MAX_WORKERS,
        prewarm: int = 0,
        region: str = "us-east-1",
    ) -> None:
        self.region = region
        self.data_dir = data_dir.absolute()
        self.postgres: Postgres | None = None
        self.pool: LambdaPool
        self.states: StateMachineService
        self.deployment: Deployment
        self.endpoint_url = ""
        self.dsn = dsn or ""
        self._template_path = template
        self._clock_speed = clock_speed
        self._parameters = dict(parameters or {})
        self._port = port
        self._postgres_port, self._postgres_settings = postgres_port, dict(postgres_settings or {})
        self._durable = durable
        self._secret_name = secret_name
        self._max_workers = max_workers
        self._prewarm = prewarm
        self._clients: dict[str, Any] = {}
        self._clients_lock = threading.Lock()
        self._session: Any = None
        self._cleanup = ExitStack()

    def start(self) -> LocalStack:
        """Start and deploy everything. Raises LocalStackError; then nothing is left running."""
        if not _only_one.acquire(blocking=False):
            raise StackRunsError
        self._cleanup.callback(_only_one.release)
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End everything that was started, and wait for it."""
        self._cleanup.close()

    def __enter__(self) -> LocalStack:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def client(self, service: str) -> Any:
        """A boto3 client for this stack; one a service, shared by all threads."""
        with self._clients_lock:
            if service not in self._clients:
                self._clients[service] = self._new_client(service)
            return self._clients[service]

    @property
    def state_machine_arn(self) -> str:
        """ARN of the template's only state machine, or of RunJobStateMachine among several."""
        machines = self.deployment.of_type("AWS::StepFunctions::StateMachine")
        if len(machines) == 1:
            return next(iter(machines.values()))
        if "RunJobStateMachine" in machines:
            return machines["RunJobStateMachine"]
        raise TemplateError(f"which state machine? The template has {', '.join(machines) or 'none'}")

    @property
    def bucket(self) -> str:
        """Name of the bucket that the functions are given in SLUICE_BUCKET, else of the template's first one."""
        for function in self.pool.functions():
            if "SLUICE_BUCKET" in function.environment:
                return function.environment["SLUICE_BUCKET"]
        return next(iter(self.deployment.of_type("AWS::S3::Bucket").values()), "")

    def env(self) -> dict[str, str]:
        """What a shell needs to work with this stack."""
        environment = {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            **CREDENTIALS,
            "SLUICE_DSN": self.dsn,
            "SLUICE_BUCKET": self.bucket,
        }
        if self.deployment.of_type("AWS::StepFunctions::StateMachine"):
            environment["SLUICE_STATE_MACHINE_ARN"] = self.state_machine_arn
        return environment

    def _start(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        if not self._template_path.is_file():
            raise TemplateError(f"there is no template {self._template_path}")
        # PostgreSQL starts while this process imports a second's worth of modules.
        starter = ThreadPoolExecutor(1, thread_name_prefix="postgres starter")
        server = starter.submit(self._start_postgres) if not self.dsn else None
        starter.shutdown(wait=False)
        try:
            front_door = self._build_services()
        finally:
            self._adopt_postgres(server)
        self._put_secret()
        services = Services(
            client=self.client,
            pool=self.pool,
            states=self.states.handle,
            endpoint_url=front_door.url,
            region=self.region,
            folder=self.data_dir,
        )
        template = load_template(self._template_path, region=self.region, cache=self.data_dir / "cache")
        self.deployment = Deployer(template, services, parameters=self._parameters).deploy()
        for function in self.pool.functions():
            self.pool.prewarm(function.name, self._prewarm)
        self._start_scheduler()

    def _start_postgres(self) -> Postgres:
        server = Postgres.start(
            self.data_dir / "pg",
            port=self._postgres_port,
            settings=self._postgres_settings,
            durable=self._durable,
        )
        try:
            if not server.has_database(DATABASE):
                server.create_database(DATABASE)
        except BaseException:
            server.stop()
            raise
        return server

    def _adopt_postgres(self, server: Future[Postgres] | None) -> None:
        if server is None:
            return
        self.postgres = server.result()
        self._cleanup.callback(self.postgres.stop)
        self.dsn = self.postgres.dsn(DATABASE)

    def _build_services(self) -> FrontDoor:
        from infra.local.front_door import FrontDoor
        from infra.local.states import Clock, StateMachineService

        _reset_moto()
        front_door = FrontDoor(self._port)
        self._cleanup.callback(front_door.close)
        self.endpoint_url = front_door.url
        forwarder = LogForwarder(self.region)
        self._cleanup.callback(forwarder.close)
        self.pool = LambdaPool(self.data_dir / "logs", max_workers=self._max_workers, observer=forwarder.put)
        self._cleanup.callback(self.pool.close)
        functions = LambdaApi(self.pool, self._clock_speed)
        self._cleanup.callback(functions.close)
        self.states = StateMachineService(
            invoke_lambda=self._invoke_for_states,
            s3=self.client("s3"),
            publish=self._publish,
            clock=Clock(speed=self._clock_speed),
            region=self.region,
            account=ACCOUNT,
        )
        self._cleanup.callback(self.states.close)
        front_door.serve(self.states, functions)
        return front_door

    def _publish(self, **arguments: Any) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = self.client("sns").publish(**arguments)
        return answer

    def _invoke_for_states(self, function: str, payload: bytes, timeout: float) -> LambdaResult:
        """Lambda as Step Functions sees it: refusals have error names of their own."""
        try:
            result = self.pool.invoke(function, payload, patience=timeout)
        except TooManyRequestsError as error:
            return _refused("Lambda.TooManyRequestsException", str(error))
        except FunctionNotFoundError as error:
            return _refused("Lambda.ResourceNotFoundException", str(error))
        return LambdaResult(payload=result.payload, function_error=result.function_error, request_id=result.request_id)

    def _put_secret(self) -> None:
        """The connection, in the form in which RDS keeps it."""
        parts = urlsplit(self.dsn)
        secret = {
            "engine": "postgres",
            "host": parts.hostname,
            "port": parts.port or 5432,
            "username": unquote(parts.username or ""),
            "password": unquote(parts.password or ""),
            "dbname": unquote(parts.path.lstrip("/")),
            "sslmode": "disable",
        }
        self.client("secretsmanager").create_secret(Name=self._secret_name, SecretString=json.dumps(secret))

    def _start_scheduler(self) -> None:
        from moto.scheduler.models import scheduler_backends

        backend = scheduler_backends[ACCOUNT][self.region]

        def schedules() -> list[Mapping[str, Any]]:
            groups = list(backend.schedule_groups.values())
            return [schedule.to_dict() for group in groups for schedule in list(group.schedules.values())]

        speed = self._clock_speed if self._clock_speed != float("inf") else 1.0
        scheduler = Scheduler(
            schedules,
            self._start_target,
            dead_letter=self._dead_letter,
            completed=lambda schedule: backend.delete_schedule(schedule["GroupName"], schedule["Name"]),
            clock=FastClock(speed),
        )
        scheduler.start()
        self._cleanup.callback(scheduler.close)

    def _start_target(self, event: Event, text: str) -> None:
        arn = event.target["Arn"]
        if ":states:" in arn:
            body = {"stateMachineArn": arn, "input": text, "name": event.execution_id}
            status, answer = self.states.handle("AWSStepFunctions.StartExecution", body)
            if status != 200:
                code = str(answer.get("__type", "")).rpartition("#")[2]
                retryable = status >= 500 or code in ("ThrottlingException", "ExecutionLimitExceeded")
                raise TargetError(code, str(answer.get("message", "")), retryable=retryable)
        elif ":lambda:" in arn:
            self.client("lambda").invoke(FunctionName=arn, InvocationType="Event", Payload=text.encode())
        else:
            raise TargetError("UnsupportedTarget", f"the local stack does not start {arn}", retryable=False)

    def _dead_letter(self, queue_arn: str, message: str, attributes: dict[str, str]) -> None:
        sqs = self.client("sqs")
        url = sqs.get_queue_url(QueueName=queue_arn.rpartition(":")[2])["QueueUrl"]
        values = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items() if value}
        sqs.send_message(QueueUrl=url, MessageBody=message, MessageAttributes=values)

    def _new_client(self, service: str) -> Any:
        from botocore.config import Config

        if self._session is None:
            self._session = _new_session(self.region)
        config = Config(max_pool_connections=64, proxies={}, retries={"mode": "standard"})
        client = self._session.create_client(
            service,
            region_name=self.region,
            endpoint_url=self.endpoint_url,
            config=config,
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )
        self._cleanup.callback(client.close)
        return client


def _refused(name: str, cause: str) -> LambdaResult:
    return LambdaResult(function_error="Unhandled", error_name=name, cause=cause)


def _new_session(region: str) -> Any:
    """A botocore session that does not look into the developer's own profiles."""
    import botocore.session

    nothing: Callable[[Any], Any] = lambda value: value  # noqa: E731
    variables = {
        "profile": (None, None, None, nothing),
        "config_file": (None, None, os.devnull, nothing),
        "credentials_file": (None, None, os.devnull, nothing),
        "region": (None, None, region, nothing),
    }
    return botocore.session.Session(session_vars=variables)


def _reset_moto() -> None:
    from moto.moto_api._internal.models import moto_api_backend

    moto_api_backend.reset()
