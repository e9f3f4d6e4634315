"""Visit every state a model can reach, breadth first, and explain what went wrong with the shortest trace.

A model gives three functions: `moves` (what may happen next), `judge` (is this move, and the state it leads
to, wrong?) and, for liveness, `helps` (may this move be counted on when nobody disturbs the run?). A state is any
hashable value; two ways of reaching an equal state are one state.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Label = tuple[object, ...]  # ("T1 marks", chunk, rows): the first item names the action
S = TypeVar("S", bound=Hashable)
Moves = Callable[[S], Iterable[tuple[Label, S]]]
Judge = Callable[[S, Label, S], Collection[str]]


@dataclass
class Exploration(Generic[S]):
    """What was visited, and for each kind of violation the shortest way to it."""

    moves: Moves[S]
    states: list[S] = field(default_factory=list)
    transitions: int = 0
    violations: dict[str, list[Label]] = field(default_factory=dict)
    parents: array[int] = field(default_factory=lambda: array("l"))
    helpful: array[int] = field(default_factory=lambda: array("l"))  # from, to, from, to, …

    def trace_to(self, number: int) -> list[Label]:
        """The labels on the way from the start to a visited state."""
        trace: list[Label] = []
        while number:
            parent = self.parents[number]
            wanted = self.states[number]
            trace.append(next(label for label, state in self.moves(self.states[parent]) if state == wanted))
            number = parent
        return trace[::-1]

    def explain(self, kind: str) -> str:
        """The counter-example of one kind of violation, one move a line."""
        return f"{kind}:\n{tell(self.violations[kind])}"

    def cannot_reach(self, goal: Callable[[S], bool]) -> Iterator[int]:
        """Numbers of the visited states from which helpful moves alone never lead to a goal, nearest first."""
        reaches = bytearray(len(self.states))
        before = _predecessors(self.helpful, len(self.states))
        frontier = [number for number, state in enumerate(self.states) if goal(state)]
        for number in frontier:
            reaches[number] = 1
        while frontier:
            for origin in before(frontier.pop()):
                if not reaches[origin]:
                    reaches[origin] = 1
                    frontier.append(origin)
        return (number for number, good in enumerate(reaches) if not good)


def tell(trace: list[Label]) -> str:
    """A trace as numbered lines."""
    return "\n".join(f"  {n:2}. {' '.join(map(str, label))}" for n, label in enumerate(trace, 1)) or "  at once"


def explore(
    start: S,
    moves: Moves[S],
    judge: Judge[S],
    *,
    helps: Callable[[Label], bool] | None = None,
    until: Collection[str] | None = None,
) -> Exploration[S]:
    """
    Visit every state that `moves` leads to from `start`.

    Parameters
    ----------
    judge
        Kinds of violation of one move (state before, label, state after). What lies behind a violation is not
        visited: the trace is already lost.
    helps
        Which moves to keep for `cannot_reach`; none are kept without it.
    until
        Stop early, once every one of these kinds has been found.

    Returns
    -------
    Exploration
        With the shortest trace for each kind of violation found.
    """
    found: Exploration[S] = Exploration(moves)
    known = {start: 0}
    found.states.append(start)
    found.parents.append(0)
    for number, state in enumerate(found.states):  # grows while it is walked: this is the queue
        for label, after in moves(state):
            found.transitions += 1
            wrong = judge(state, label, after)
            if wrong:
                for kind in wrong:
                    if kind not in found.violations:
                        found.violations[kind] = [*found.trace_to(number), label]
                if until is not None and found.violations.keys() >= set(until):
                    return found
                continue
            target = known.setdefault(after, len(found.states))
            if target == len(found.states):
                found.states.append(after)
                found.parents.append(number)
            if helps is not None and target != number and helps(label):
                found.helpful.extend((number, target))
    return found


def _predecessors(edges: array[int], size: int) -> Callable[[int], Iterator[int]]:
    """Turn (from, to) pairs into a look-up from a state to the states before it."""
    last = array("l", [-1]) * size
    link = array("l", [-1]) * (len(edges) // 2)
    for edge in range(len(link)):
        target = edges[2 * edge + 1]
        link[edge], last[target] = last[target], edge

    def before(number: int) -> Iterator[int]:
        edge = last[number]
        while edge >= 0:
            yield edges[2 * edge]
            edge = link[edge]

    return before
