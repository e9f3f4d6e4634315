"""What every branch of every execution shares: collaborators, limits and the parts that run Tasks and Maps."""

from __future__ import annotations

import random
from collections.abc import Callable

from .clock import Clock
from .execution import Execution
from .map_run import MapRun
from .maps import Maps
from .ports import S3, InvokeLambda, Publish
from .tasks import Tasks

# (state machine ARN, execution name or None, input as JSON text) → the running execution; ApiError when refused.
StartExecution = Callable[[str, str | None, str], Execution]


class Environment:
    """The interpreter's surroundings."""

    def __init__(
        self,
        *,
        invoke_lambda: InvokeLambda,
        s3: S3,
        publish: Publish,
        clock: Clock,
        region: str,
        account: str,
        max_threads: int,
        start_execution: StartExecution,
        register_map_run: Callable[[MapRun], None],
        register_child: Callable[[Execution], None],
        retire_map_run: Callable[[MapRun], None],
    ) -> None:
        self.invoke_lambda = invoke_lambda
        self.s3 = s3
        self.publish = publish
        self.clock = clock
        self.region = region
        self.account = account
        self.max_threads = max_threads
        self.start_execution = start_execution
        self.register_map_run = register_map_run
        self.register_child = register_child
        self.retire_map_run = retire_map_run
        self.chance = random.Random()
        self.tasks = Tasks(self)
        self.maps = Maps(self)

    def arn(self, kind: str, *path: str) -> str:
        """An ARN of this service, account and region."""
        return ":".join(("arn:aws:states", self.region, self.account, kind, *path))
