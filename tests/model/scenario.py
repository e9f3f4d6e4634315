"""What a model run is made of: the rules of the protocol, a small table, and who may disturb it how often."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.model.world import Row, State


@dataclass(frozen=True)
class Rules:
    """What the protocol insists on. Each may be taken away, to see what it is there for."""

    stamp: bool = True  # T2 stamps what it applies; a stamped row is no longer to do
    ledger: bool = True  # T1 and T2 lock the chunk's ledger row and test its state
    exact_state: bool = True  # T2 works only on a chunk that is 'marked' (fused: 'planned')
    mark_tests_stamp: bool = True  # T1 marks only rows that are to do
    flag_with_stamp: bool = True  # the statement that stamps clears the flag
    post_check: bool = True  # T2 commits 'done' only when its range has nothing left to do
    counts_unmarked: bool = True  # the post-check counts every row to do, whether it carries the flag or not
    sweep: bool = True  # the planner opens late chunks until nothing is left to do anywhere
    late_numbers: bool = True  # a late chunk gets a number of its own
    run_barrier: bool = True  # T1 and T2 hold the run row; what ends or resets a run waits for them
    active_run: bool = True  # T1 and T2 work only for a run that is active, wanted and of their generation
    one_active: bool = True  # the unique index: one active run per target
    newest_run: bool = True  # only the newest run of a target may be taken up again
    reset_leaves_split: bool = True  # a reset puts neither 'done' nor 'split' chunks back
    chunk_lock: bool = True  # split and quarantine lock the chunk, like T1 and T2
    finish_unflags: bool = True  # whoever ends a run clears the flags it leaves


@dataclass(frozen=True)
class Scenario:
    """A small target table, who may disturb the run, and how often."""

    name: str = field(compare=False)
    mode: str = "visible"  # visible | fused | run
    keys: tuple[int, ...] = (0, 1, 2)  # one row for each
    ranges: tuple[tuple[int, int], ...] = ((0, 1), (2, 2))  # chunks of the plan
    new_keys: tuple[int, ...] = (0, 2)  # where rows are inserted: one key in each chunk
    sessions: int = 2  # transactions open at once
    runs: int = 1
    generations: int = 1
    budget: tuple[tuple[str, int], ...] = ()  # disturbances of the data, see disturbances.py
    operator: frozenset[str] = frozenset()  # split | quarantine | pause | cancel | fail
    slow_writer: bool = False  # the application's transactions stay open for a while
    rules: Rules = field(default=Rules())

    def first_state(self) -> State:
        rows = tuple(Row(key, (0,) * self.runs) for key in self.keys)
        return State(rows, budget=tuple(count for _, count in self.budget))

    def spend(self, budget: tuple[int, ...], what: str) -> tuple[int, ...] | None:
        """The budget after one more disturbance of a kind; None when that is used up."""
        for place, (name, _) in enumerate(self.budget):
            if name == what and budget[place]:
                return (*budget[:place], budget[place] - 1, *budget[place + 1 :])
        return None
