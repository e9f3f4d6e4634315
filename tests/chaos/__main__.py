"""`make chaos`: disturb the real thing, then compare every row; exit code 1 where anything is wrong."""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial

from tests.chaos.campaign import chaos, control


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="invocations that have to lose their worker")
    parser.add_argument("--seed", type=int, default=1, help="draws the sequence of choices; timing stays free")
    parser.add_argument("--rows", type=int, default=20_000, help="rows of the table at the start")
    parser.add_argument(
        "--control", action="store_true", help="the first design instead, for a few kills: it has to show faults"
    )
    options = parser.parse_args()
    started = time.monotonic()
    kills = min(options.kills, 20) if options.control else options.kills
    campaign = control if options.control else chaos
    result = campaign(kills=kills, seed=options.seed, rows=options.rows, say=partial(print, flush=True))
    print(result.text)
    print(f"{result.verdict} ({time.monotonic() - started:.0f} s, seed {options.seed})")
    has_faults = not result.account.is_clean
    return int(has_faults != options.control)


if __name__ == "__main__":
    sys.exit(main())
