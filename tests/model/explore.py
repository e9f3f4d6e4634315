"""Visit every state a model can reach, breadth first, and explain what went wrong with the shortest trace.

A model gives two functions: `moves` (what may happen next) and `judge` (is this move, or the state it leads to,
wrong?). A state is any hashable value; two ways of reaching an equal state are one state. The first item of a
move's label is its kind, so that liveness can be asked about some kinds of moves only.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Label = tuple[object, ...]  # (kind, what happens, with which rows, …)
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
    edges: dict[object, array[int]] = field(default_factory=dict)  # by kind: from, to, from, to, …

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

    def cannot_reach(self, goal: Callable[[S], bool], kinds: Collection[str]) -> Iterator[int]:
        """Numbers of the visited states from which moves of some kinds never lead to a goal, nearest first."""
        reaches = bytearray(len(self.states))
        edges = array("l")
        for kind in kinds:
            edges.extend(self.edges.get(kind, ()))
        before = _predecessors(edges, len(self.states))
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
    return (
        "\n".join(f"  {n:2}. {label[0]}: {' '.join(map(str, label[1:]))}" for n, label in enumerate(trace, 1))
        or "  at once"
    )


def _say(label: Label) -> str:
    return f"{label[0]}: {' '.join(map(str, label[1:]))}"


def explore(
    start: S,
    moves: Moves[S],
    judge: Judge[S],
    *,
    keep: Collection[str] = (),
    until: Collection[str] | None = None,
) -> Exploration[S]:
    """
    Visit every state that `moves` leads to from `start`.

    Parameters
    ----------
    judge
        Kinds of violation of one move (state before, label, state after). What lies behind a violation is not
        visited: the trace is already lost.
    keep
        Kinds of moves to remember for `cannot_reach`.
    until
        Stop early, once every one of these kinds has been found.

    Returns
    -------
    Exploration
        With the shortest trace for each kind of violation found.
    """
    found: Exploration[S] = Exploration(moves)
    known: dict[S, int] = {start: 0}
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
            if label[0] in keep and target != number:
                found.edges.setdefault(label[0], array("l")).extend((number, target))
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
