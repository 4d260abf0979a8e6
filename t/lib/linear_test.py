# SPDX-License-Identifier: BSD-2-Clause
"""What linear.py must accept, and what it must not."""
import itertools
import random
import sys

from linear import ABSENT, apply, explain, linearizable, optional


def create(value, start, to, end="ok", name="n"):
    return {"op": "create", "name": name, "value": value, "from": start, "to": to, "end": end}


def unlink(start, to, end="ok", name="n"):
    return {"op": "unlink", "name": name, "from": start, "to": to, "end": end}


def read(value, start, to, name="n"):
    return {"op": "read", "name": name, "value": value, "from": start, "to": to}


def put(value, version, start, to, end="ok"):
    return {"op": "set", "value": value, "version": version, "from": start, "to": to, "end": end}


def get(node, value, version, start, to):
    return {"op": "get", "node": node, "value": value, "version": version, "from": start, "to": to}


GOOD = {
    "nothing": [],
    "one after the other": [create(1, 0, 1), read(1, 2, 3), unlink(4, 5), read(None, 6, 7)],
    "a read during a create": [create(1, 0, 9), read(None, 1, 2), read(1, 3, 4)],
    "two creates, one told": [create(1, 0, 9), create(2, 0, 9, "exists"), read(1, 10, 11)],
    "a create of unknown end that was done late":
        [create(1, 0, 1, "unknown"), read(None, 2, 3), read(1, 4, 5)],
    "and one that never was": [create(1, 0, 1, "unknown"), read(None, 2, 3), create(2, 4, 5)],
    "an unlink of unknown end": [create(1, 0, 1), unlink(2, 3, "unknown"), read(1, 4, 5),
                                 read(None, 6, 7)],
    "an unlink that was refused": [create(1, 0, 1), unlink(2, 3, "none"), read(1, 4, 5)],
    "two nodes that remove it at the same time": [create(1, 0, 1), unlink(2, 4), unlink(3, 5),
                                                  read(None, 6, 7)],
    "a listing": [create(1, 0, 1), read(True, 2, 3), unlink(4, 9), read(True, 5, 6)],
    "names do not know each other": [create(1, 0, 1, name="a"), read(None, 2, 3, name="b")],
    "rules": [put("x", 1, 0, 1), get("a", "x", 1, 2, 3), get("b", None, 0, 2, 3),
              put("y", 2, 4, 5), get("b", "y", 2, 6, 7)],
    "a set of unknown end": [put("x", 0, 0, 1, "unknown"), get("a", "x", 1, 2, 3)],
}
BAD = {
    "a lost file": [create(1, 0, 1), read(None, 2, 3)],
    "a lost file in a listing": [create(1, 0, 1), read(None, 2, 3), read(1, 4, 5)],
    "another's bytes": [create(1, 0, 1), read(2, 2, 3)],
    "two creates that both succeed": [create(1, 0, 9), create(2, 0, 9)],
    "back from the dead": [create(1, 0, 1), unlink(2, 3), read(1, 4, 5)],
    "seen, then not, then seen": [create(1, 0, 9), read(1, 1, 2), read(None, 3, 4)],
    "before it began": [read(1, 0, 1), create(1, 2, 3)],
    "of unknown end, done twice": [create(1, 0, 1, "unknown"), read(1, 2, 3), unlink(4, 5),
                                   read(None, 6, 7), read(1, 8, 9)],
    "it exists, and nothing is there": [create(1, 0, 1, "exists")],
    "absent, though it is there": [create(1, 0, 1), unlink(2, 3, "absent")],
    "an unlink of nothing": [unlink(0, 1)],
    "removed twice": [create(1, 0, 1), unlink(2, 3), unlink(4, 5)],
    "removed by two, and still there": [create(1, 0, 1), unlink(2, 4), unlink(3, 5),
                                        read(1, 6, 7)],
    "refused and done": [create(1, 0, 1), unlink(2, 3, "none"), read(None, 4, 5)],
    "rules that go back": [put("x", 1, 0, 1), put("y", 2, 2, 3), get("a", "y", 2, 4, 5),
                           get("a", "x", 1, 6, 7)],
    "rules of the future": [get("a", "x", 1, 0, 1), put("x", 1, 2, 3)],
    "a version of two": [put("x", 1, 0, 1), put("y", 1, 2, 3)],
    "versions against time": [put("x", 2, 0, 1), put("y", 1, 2, 3)],
    "rules of nobody": [put("x", 1, 0, 1), get("a", "z", 1, 2, 3)],
}


def by_hand(calls):
    """The same by trying every order of every choice: for few calls."""
    unknown = [c for c in calls if optional(c)]
    known = [c for c in calls if not optional(c)]
    for k in range(len(unknown) + 1):
        for some in itertools.combinations(unknown, k):
            for order in itertools.permutations(known + list(some)):
                value, fits = ABSENT, True
                for i, call in enumerate(order):
                    late = any(later["to"] < call["from"] for later in order[i + 1:]
                               if not optional(later))
                    values = apply(call, value)
                    if late or not values:
                        fits = False
                        break
                    value = values[0]
                if fits:
                    return True
    return False


def random_calls(rng):
    calls = []
    for i in range(rng.randint(1, 5)):
        start = rng.randint(0, 8)
        to = start + rng.randint(1, 5) + rng.random()
        kind = rng.randint(0, 2)
        if kind == 0:
            calls.append(create(i, start, to, rng.choice(["ok", "ok", "exists", "unknown"])))
        elif kind == 1:
            calls.append(unlink(start, to, rng.choice(["ok", "absent", "unknown"])))
        else:
            calls.append(read(rng.choice([None, True, rng.randint(0, 4)]), start, to))
    return calls


def main():
    for what, history in GOOD.items():
        wrong = explain(history)
        if wrong:
            sys.exit(f"{what}: {wrong}")
    for what, history in BAD.items():
        if not explain(history):
            sys.exit(f"{what}: it was explained")
    rng = random.Random(1)
    both = [0, 0]
    for _ in range(3000):
        calls = random_calls(rng)
        mine = linearizable(calls) is None
        if mine != by_hand(calls):
            sys.exit(f"it says {mine}: {calls}")
        both[mine] += 1
    if min(both) < 300:
        sys.exit(f"too few of one kind: {both}")
    print(f"{len(GOOD)} good ones, {len(BAD)} bad ones, {sum(both)} at random: {both}")


main()
