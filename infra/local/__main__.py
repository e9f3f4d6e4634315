"""`python -m infra.local`: the local stack's command."""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from infra.local.errors import LocalStackError
from infra.local.supervisor import Files, Running, run, start_in_background, stop

REPOSITORY = Path(__file__).resolve().parents[2]


class InvokeError(LocalStackError):
    """The function could not be invoked."""


def up(options: argparse.Namespace) -> int:
    """Start the stack, in the background unless told otherwise."""
    files = Files(options.data_dir)
    if not options.foreground:
        running = start_in_background(files, _up_arguments(options))
        print("\n".join(running.lines()))
        print(f"For your shell: source {_short(files.env)}")
        return 0
    from infra.local.stack import LocalStack

    parameters = dict(parameter.split("=", 1) for parameter in options.parameter)
    stack = LocalStack(
        template=options.template,
        data_dir=options.data_dir,
        clock_speed=options.clock_speed,
        parameters=parameters,
        port=options.port,
        postgres_port=options.postgres_port,
        secret_name=options.secret_name,
        max_workers=options.max_workers,
        prewarm=options.prewarm,
    )
    run(stack, files, options.ready_fd)
    return 0


def down(options: argparse.Namespace) -> int:
    """End the stack."""
    stop(Files(options.data_dir))
    return 0


def env(options: argparse.Namespace) -> int:
    """Print the export lines for a shell."""
    files = Files(options.data_dir)
    files.running()
    print(files.env.read_text(), end="")
    return 0


def status(options: argparse.Namespace) -> int:
    """Say whether the stack is up, and where."""
    running = Files(options.data_dir).running()
    print("\n".join([f"up             process {running.pid}", *running.lines()]))
    return 0


def demo(options: argparse.Namespace) -> int:
    """Run the conflict report over generated visits, from nothing to its result."""
    from infra.local.demo import demo as show

    return show(options.data_dir, options.rows)


def invoke(options: argparse.Namespace) -> int:
    """Invoke a function; its answer goes to standard output, what it logged to standard error."""
    running = Files(options.data_dir).running()
    payload = _read_event(options.event)
    name = find_function(running, options.function)
    request = urllib.request.Request(
        f"{running.endpoint_url}/2015-03-31/functions/{name}/invocations",
        data=payload.encode(),
        headers={"X-Amz-Log-Type": "Tail", "Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request) as answer:
            body, headers = answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        raise InvokeError(f"{error.headers.get('x-amzn-ErrorType')}: {error.read().decode()}") from None
    print(base64.b64decode(headers.get("X-Amz-Log-Result", "")).decode(errors="replace"), end="", file=sys.stderr)
    print(json.dumps(json.loads(body), indent=2))
    return 1 if headers.get("X-Amz-Function-Error") else 0


def logs(options: argparse.Namespace) -> int:
    """Print a function's log, and with --follow what comes."""
    files = Files(options.data_dir)
    name = find_function(files.running(), options.function)
    path = files.folder / "logs" / f"{name}.log"
    with path.open(errors="replace") as log:
        while True:
            for line in log:
                print(line, end="", flush=True)
            if not options.follow or not files.is_locked():
                return 0
            time.sleep(0.2)


def find_function(running: Running, name: str) -> str:
    """A function's name from its name, its logical id or its folder (verb_noun). Raises InvokeError."""
    logical_id = "".join(word.capitalize() for word in name.split("_")) + "Function"
    for candidate in (name, logical_id):
        if candidate in running.functions:
            return running.functions[candidate]
    if name in running.functions.values():
        return name
    folders = (
        re.sub(r"(?<!^)(?=[A-Z])", "_", logical_id.removesuffix("Function")).lower() for logical_id in running.functions
    )
    raise InvokeError(f"there is no function {name}; there are {', '.join(sorted(folders))}")


def _read_event(event: str) -> str:
    """The JSON text itself, or that of the file it names."""
    named = event.removeprefix("@")
    try:
        text = Path(named).read_text() if event.startswith("@") or event.endswith(".json") else event
        json.loads(text)
    except OSError as error:
        raise InvokeError(f"cannot read {named}: {error.strerror}") from None
    except ValueError as error:
        raise InvokeError(f"the event is not JSON: {error}") from None
    return text


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _up_arguments(options: argparse.Namespace) -> list[str]:
    arguments = ["--data-dir", str(options.data_dir), "--template", str(options.template)]
    arguments += ["--clock-speed", str(options.clock_speed), "--port", str(options.port)]
    arguments += ["--secret-name", options.secret_name, "--max-workers", str(options.max_workers)]
    arguments += ["--prewarm", str(options.prewarm)]
    if options.postgres_port:
        arguments += ["--postgres-port", str(options.postgres_port)]
    for parameter in options.parameter:
        arguments += ["--parameter", parameter]
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m infra.local", description="The stack of template.yaml on this machine."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, action: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=action.__doc__, description=action.__doc__)
        added.set_defaults(action=action)
        added.add_argument("--data-dir", type=_absolute, default=REPOSITORY / ".sluice", help="default: .sluice")
        return added

    starter = command("up", up)
    starter.add_argument("--foreground", action="store_true", help="stay, and end with Ctrl-C")
    starter.add_argument("--template", type=_absolute, default=REPOSITORY / "template.yaml")
    starter.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE", type=_assignment)
    starter.add_argument("--port", type=int, default=0, help="of the endpoint; default: a free one")
    starter.add_argument("--postgres-port", type=int, help="default: a free one")
    starter.add_argument("--clock-speed", type=float, default=1.0, help="how many times as fast waits run")
    starter.add_argument("--secret-name", default="sluice/target", help="of the target's connection")
    starter.add_argument("--max-workers", type=int, default=10, help="processes of one function at most")
    starter.add_argument("--prewarm", type=int, default=0, help="processes of each function started ahead")
    starter.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    command("down", down)
    command("demo", demo).add_argument("--rows", type=int, default=50_000, help="rows that may conflict")
    command("env", env)
    command("status", status)
    invoker = command("invoke", invoke)
    invoker.add_argument("function", help="its folder, logical id or name")
    invoker.add_argument("event", nargs="?", default="{}", help="JSON text or a file of it")
    reader = command("logs", logs)
    reader.add_argument("function", help="its folder, logical id or name")
    reader.add_argument("-f", "--follow", action="store_true")
    return parser


def _absolute(text: str) -> Path:
    return Path(text).absolute()


def _assignment(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"{text} is not NAME=VALUE")
    return text


def main() -> int:
    options = _parser().parse_args()
    try:
        status_code: int = options.action(options)
    except LocalStackError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python would complain about it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return status_code


if __name__ == "__main__":
    sys.exit(main())
