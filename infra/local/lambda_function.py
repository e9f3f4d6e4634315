"""A Lambda function as the local pool runs it: its code, layers and environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# What a worker may see of the developer's own environment; everything else would differ from AWS.
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_SESSION_TOKEN": "local",
}


@dataclass(frozen=True)
class Function:
    """One function.

    `code` is what AWS calls LAMBDA_TASK_ROOT; `opt` is the folder that stands in for /opt, with the layers' contents
    in it. `timeout` is in seconds, `memory` in MB. `reserved_concurrency` None means no reservation.
    """

    name: str
    arn: str
    handler: str
    code: Path
    opt: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 3.0
    memory: int = 128
    reserved_concurrency: int | None = None
    endpoint_url: str = ""
    region: str = "us-east-1"
    log_group: str = ""
    log_format: str = "Text"
    log_level: str = ""

    def process_environment(self, runtime_api: str, log_stream: str) -> dict[str, str]:
        """The environment of a worker process, as in AWS but for the folders."""
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        environment |= {
            "LANG": "en_US.UTF-8",
            "PYTHONUTF8": "1",
            "TZ": ":UTC",
            "HOME": "/tmp",
            # The developer's own profiles must not reach the function.
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "PYTHONPATH": os.pathsep.join(str(folder) for folder in self.python_path()),
        }
        environment |= {name: self._in_opt(value) for name, value in self.environment.items()}
        environment |= CREDENTIALS
        return environment | {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info[0]}.{sys.version_info[1]}",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(self.memory),
            "AWS_LAMBDA_FUNCTION_NAME": self.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_FORMAT": self.log_format,
            "AWS_LAMBDA_LOG_GROUP_NAME": self.log_group or f"/aws/lambda/{self.name}",
            "AWS_LAMBDA_LOG_LEVEL": self.log_level,
            "AWS_LAMBDA_LOG_STREAM_NAME": log_stream,
            "AWS_LAMBDA_RUNTIME_API": runtime_api,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "LAMBDA_RUNTIME_DIR": "/var/runtime",
            "LAMBDA_TASK_ROOT": str(self.code),
            "_HANDLER": self.handler,
        }

    def python_path(self) -> list[Path]:
        """Import folders behind the code itself: /opt/python, and /opt for layers whose source has no such folder."""
        return [self.code, self.opt / "python", self.opt] if self.opt else [self.code]

    def _in_opt(self, value: str) -> str:
        if self.opt is None or not (value == "/opt" or value.startswith("/opt/")):
            return value
        return str(self.opt) + value[len("/opt") :]


def assemble_opt(target: Path, layers: list[Path]) -> None:
    """Fill `target` as AWS fills /opt from the layers' contents, with links in place of copies.

    A name that several layers have is a folder with the contents of all of them; of a file the later layer's wins.
    """
    target.mkdir(parents=True, exist_ok=True)
    entries: dict[str, list[Path]] = {}
    for layer in layers:
        for entry in sorted(layer.iterdir()) if layer.is_dir() else []:
            entries.setdefault(entry.name, []).append(entry)
    for name, sources in entries.items():
        folders = [source for source in sources if source.is_dir()]
        if len(folders) > 1 and sources[-1].is_dir():
            assemble_opt(target / name, folders)
        else:
            (target / name).symlink_to(sources[-1].resolve(), target_is_directory=sources[-1].is_dir())
