"""What is checked: the scenarios of Sluice's protocol, its rules taken away one by one, and the table of designs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

from tests.model.designs import DESIGNS, design_moves, design_start, judge_table
from tests.model.disturbances import disturb
from tests.model.explore import Exploration, explore
from tests.model.invariants import broken
from tests.model.operators import operate
from tests.model.protocol import ATTEMPT, HELP, PLANNER, WRITER_ENDS, Move, plan, work
from tests.model.scenario import Rules, Scenario
from tests.model.world import State

UNAIDED = (ATTEMPT, PLANNER, WRITER_ENDS)
EVERYTHING = frozenset({"split", "quarantine", "pause", "cancel", "fail"})
DATA = (("clear", 1), ("move", 1), ("insert", 1), ("delete", 1), ("leave", 1))
LEAVE = (("clear", 1), ("move", 1), ("leave", 1))
SLOW = (("clear", 1), ("move", 1), ("insert", 1))
TWO_ROWS = Scenario("", keys=(0, 2), new_keys=(0,))  # the two chunks mirror each other: insert into one of them


def sluice_moves(scenario: Scenario, state: State) -> Iterator[Move]:
    """Everything that may happen next under Sluice's protocol."""
    return chain(work(scenario, state), plan(scenario, state), operate(scenario, state), disturb(scenario, state))


def check(scenario: Scenario) -> Exploration[State]:
    """Visit all states of a scenario and judge them by every invariant."""
    return explore(
        scenario.first_state(),
        lambda state: sluice_moves(scenario, state),
        lambda before, label, after: broken(scenario, before, after),
        keep=(*UNAIDED, HELP),
    )


def check_without(rules: Rules, scenario: Scenario, expected: str) -> Exploration[State]:
    """Look for the violation of one invariant, walking past those of others, until it is found."""
    changed = replace(scenario, rules=rules)
    return explore(
        changed.first_state(),
        lambda state: sluice_moves(changed, state),
        lambda before, label, after: {expected} & {*broken(changed, before, after)},
        until=(expected,),
    )


# Every scenario is exhaustive: nothing limits the number of attempts, crashes and retries, `budget` limits only what
# others do to the data. Two open transactions are all that two chunks allow; where chunks split, some have three.
SCENARIOS = [
    *(Scenario(f"undisturbed, {mode}", mode=mode) for mode in ("visible", "fused", "run")),
    replace(TWO_ROWS, name="others change rows, visible", budget=DATA[:-1]),
    Scenario("rows leave the filter, visible", budget=LEAVE),
    Scenario("others change rows, fused", mode="fused", budget=DATA),
    Scenario("others change rows, run", mode="run", budget=LEAVE),
    Scenario("two manual resets and late rows", budget=(("clear", 2), ("move", 1), ("insert", 1))),
    *(
        Scenario(f"others' transactions stay open, {mode}", mode=mode, budget=SLOW, slow_writer=True)
        for mode in ("visible", "fused", "run")
    ),
    *(
        Scenario(f"operators and failures, {mode}", mode=mode, operator=EVERYTHING, generations=2)
        for mode in ("visible", "fused", "run")
    ),
    replace(
        TWO_ROWS,
        name="operators, failures and row changes",
        operator=frozenset({"quarantine", "cancel", "fail"}),
        generations=2,
        budget=(("clear", 1), ("move", 1)),
    ),
    Scenario("splits and moved rows", sessions=3, operator=frozenset({"split"}), budget=(("move", 1),)),
    *(
        replace(
            TWO_ROWS,
            name=f"two runs on one target, {mode}",
            mode=mode,
            runs=2,
            generations=2,
            operator=frozenset({"fail", "quarantine"}),
        )
        for mode in ("visible", "fused")
    ),
]

FULL = [
    Scenario("full: others change rows", budget=DATA),
    Scenario(
        "full: all at once",
        operator=frozenset({"split", "quarantine", "cancel", "fail"}),
        generations=2,
        sessions=3,
        budget=(("clear", 1), ("move", 1)),
    ),
    replace(
        TWO_ROWS,
        name="full: two runs and row changes",
        runs=2,
        generations=2,
        operator=frozenset({"fail", "quarantine"}),
        budget=(("clear", 1), ("move", 1)),
    ),
]

# (what is wrong, the rules as they would then be, where it shows, what it breaks)
FAILING = replace(TWO_ROWS, operator=frozenset({"fail"}))
AGAIN = replace(TWO_ROWS, generations=2)
TWO_RUNS = replace(FAILING, keys=(0,), ranges=((0, 2),), runs=2, generations=2)
RESET = Scenario("", budget=(("clear", 1),))
MOVED = Scenario("", budget=(("move", 1),))
TAKEN_AWAY: list[tuple[str, Rules, Scenario, str]] = [
    ("no stamp", Rules(stamp=False), MOVED, "I3 row applied twice in a run"),
    ("T2 takes a chunk that is not 'marked'", Rules(exact_state=False), MOVED, "I9 forbidden ledger transition"),
    (
        "fused T2 without the ledger row",
        Rules(ledger=False),
        replace(MOVED, mode="fused"),
        "I9 forbidden ledger transition",
    ),
    ("T1 marks rows that carry the stamp", Rules(mark_tests_stamp=False), MOVED, "I5 flag and stamp together"),
    ("flag outlives the stamp", Rules(flag_with_stamp=False), MOVED, "I5 flag and stamp together"),
    ("no post-check", Rules(post_check=False), RESET, "I4 false success"),
    (
        "the post-check counts only marked rows, and a manual reset came between",
        Rules(counts_unmarked=False),
        replace(RESET, mode="run"),
        "I4 false success",
    ),
    (
        "the post-check counts only marked rows, and the run had failed, which clears the flags",
        Rules(counts_unmarked=False),
        replace(FAILING, mode="run"),
        "I4 false success",
    ),
    ("no sweep", Rules(sweep=False), MOVED, "I23 success leaves rows to do"),
    ("late chunks reuse numbers", Rules(late_numbers=False), MOVED, "I9 forbidden ledger transition"),
    (
        "a reset does not wait for open work",
        Rules(run_barrier=False),
        AGAIN,
        "I14 work for a stale generation or a run that ended",
    ),
    ("a run ends while T1 is open", Rules(run_barrier=False), FAILING, "I6 flag without an active run"),
    ("work goes on for a run that failed", Rules(active_run=False), TWO_RUNS, "I3 row applied twice in a run"),
    ("two runs become active", Rules(one_active=False), TWO_RUNS, "I12 two active runs"),
    ("an older run is taken up again", Rules(newest_run=False), TWO_RUNS, "I3 row applied twice in a run"),
    (
        "a reset puts split chunks back",
        Rules(reset_leaves_split=False),
        Scenario("", operator=frozenset({"split"}), generations=2),
        "I2 key in no or two chunks",
    ),
    (
        "split without the chunk's lock",
        Rules(chunk_lock=False),
        Scenario("", operator=frozenset({"split"})),
        "I9 forbidden ledger transition",
    ),
    ("the end of a run leaves flags", Rules(finish_unflags=False), FAILING, "I6 flag without an active run"),
]

# The table of section 2: D = a row applied twice, F = a chunk reported done with rows not applied, R = rows that
# moved between chunks are left over.
COLUMNS: dict[str, tuple[tuple[str, int], ...]] = {
    "retry+zombie": (),
    "2 crashes": (("crash", 2),),
    "manual reset": (("clear", 1),),
    "key move": (("move", 1),),
    "late insert": (("insert", 1),),
    "all": (("crash", 2), ("clear", 1), ("move", 1), ("insert", 1)),
}
OURS = {
    "P-stamp: no ledger, no sweep": Rules(ledger=False, sweep=False),
    "P-ledger: no stamp, T2 without the exact state": Rules(stamp=False, sweep=False, exact_state=False),
    "P-ledger: no stamp": Rules(stamp=False, sweep=False),
    "P-full: stamp and ledger, no sweep": Rules(sweep=False),
    "P-stamp and sweep": Rules(ledger=False),
    "P-full and sweep": Rules(),
}
TABLE: dict[str, tuple[str, str, str, str, str, str]] = {
    "first design as written": ("DF", "DF", "DF", "DF", "DF", "DF"),
    "first design, always phase 2": ("D", "D", "DF", "D", "D", "DF"),
    "first design, both phases in one transaction": ("D", "D", "D", "D", "D", "D"),
    "status row in own transaction": ("D", "D", "D", "D", "D", "D"),
    "lease with expiry": ("D", "D", "D", "D", "D", "D"),
    "lease, fence checked outside the work transaction": ("D", "D", "D", "D", "D", "D"),
    "P-stamp: no ledger, no sweep": ("", "", "", "R", "", "R"),
    "P-ledger: no stamp, T2 without the exact state": ("F", "F", "F", "DF", "F", "DF"),
    "P-ledger: no stamp": ("", "", "", "D", "", "DF"),
    "P-full: stamp and ledger, no sweep": ("", "", "", "R", "", "R"),
    "P-stamp and sweep": ("", "", "", "", "", ""),
    "P-full and sweep": ("", "", "", "", "", ""),
}


def check_design(name: str, column: str, full: bool = False) -> Exploration[State]:
    """
    Visit the states of one cell of the table.

    Every day with two rows, and the last column, the largest, is left as soon as it has shown what it must; that
    nothing else is wrong there is left to `full`, which exhausts every cell but those with both D and F, and takes
    three rows (two for all disturbances of a lease: about a million states).
    """
    expected = set(TABLE[name][list(COLUMNS).index(column)])
    leased = name in DESIGNS and DESIGNS[name].lease_expires
    table = Scenario("") if full and not (leased and column == "all") else TWO_ROWS
    scenario = replace(table, name=name, budget=COLUMNS[column])
    early = expected == {"D", "F"} or (expected and column == "all" and not full)
    until = tuple(expected) if early else None
    if name in DESIGNS:
        design = DESIGNS[name]
        return explore(
            design_start(scenario),
            lambda state: design_moves(design, scenario, state),
            lambda before, label, after: judge_table(scenario, before, after),
            until=until,
        )
    scenario = replace(scenario, rules=OURS[name])
    return explore(
        scenario.first_state(),
        lambda state: chain(work(scenario, state), plan(scenario, state), disturb(scenario, state)),
        lambda before, label, after: judge_table(scenario, before, after),
        until=until,
    )


def verdict(found: Exploration[State]) -> str:
    """The letters of a cell. R counts only where nothing worse is wrong."""
    letters = "".join(sorted(found.violations))
    return letters.replace("R", "") or letters
