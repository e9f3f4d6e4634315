from __future__ import annotations
import sys, time
from dataclasses import replace
from itertools import chain
from tests.model.protocol import *
from tests.model.disturbances import disturb
from tests.model.operator_moves import operate
from tests.model.invariants import broken
from tests.model.explore import explore, tell
def moves_of(sc):
    return lambda s: chain(work(sc,s), plan(sc,s), operate(sc,s), disturb(sc,s))
def run(sc):
    t=time.time()
    ex=explore(sc.first_state(), moves_of(sc), lambda a,l,b: broken(sc,a,l,b))
    print(sc.name, len(ex.states), ex.transitions, round(time.time()-t,1), {k:len(v) for k,v in ex.violations.items()}, flush=True)
    for k in ex.violations: print(ex.explain(k))
    return ex
B=lambda **k: tuple(k.items())
if __name__=="__main__":
    for m in ("visible","fused","run"):
        run(Scenario("plain "+m,mode=m))
        run(Scenario("data "+m,mode=m,budget=B(clear=1,move=1,insert=1,delete=1)))
    ops=frozenset("split quarantine pause cancel fail".split())
    run(Scenario("ops", operator=ops, generations=2))
    run(Scenario("two runs", operator=frozenset(("fail","cancel")), generations=2, runs=2, keys=(0,2), ranges=((0,1),(2,2))))
