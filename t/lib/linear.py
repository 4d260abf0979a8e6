# SPDX-License-Identifier: BSD-2-Clause
"""Can a history of calls on several nodes be explained by one order that respects time?

A history is a file with a JSON object a line, in any order:

    {"op": "create", "name": N, "value": V, "from": T, "to": T, "end": "ok"|"exists"|"unknown"}
    {"op": "unlink", "name": N, "from": T, "to": T, "end": "ok"|"absent"|"unknown"|"none"}
    {"op": "read",   "name": N, "from": T, "to": T, "value": V}     V null: it is not there;
                                                 true: it is there, and nothing more is known
    {"op": "set",    "value": V, "version": K, "from": T, "to": T, "end": "ok"|"unknown"}
    {"op": "get",    "node": D, "value": V, "version": K, "from": T, "to": T}

T are seconds of one monotonic clock of the machine, before the call began and after it had
ended.  A listing of a directory is a read of every name that it might have had, true or null:
readdir(3) promises no more of many names than of each.

Names.  Each is a register of its own: it has a value, which no two creates share, or none.
That is linearizable if its calls can be put into one order in which each takes effect at one
moment between `from` and `to`, a create that ended with "ok" finds nothing and leaves its
value, one that ended with "exists" finds something, an unlink with "ok" finds something and
leaves nothing, with "absent" finds nothing, and each read finds what it saw.  Calls that ended
with "unknown" (an error, or nobody was left to hear the end) may have taken effect once at any
moment after `from`, or never; "none" is known to have had none.  Two unlinks that overlap may
both end with "ok" for one file: storages do not say which of two deletions it was.

Linearizability is local (Herlihy and Wing): the whole history is linearizable if each name's
is.  The search is Wing's and Gong's, with Lowe's memory of what was tried: depth first over
which call comes next among those that began before every other one that is left had ended;
(what is done, value) is never tried twice.

Rules.  Sets that ended "ok" have the version that they made; versions go up with time, and no
version is two values.  A get has the value of its version, which was set before the get ended;
the versions that one node gets never go down.  (That another node has a new version at once is
not promised: it comes with a heartbeat.)

    linear.py HISTORY      exit 0, or 1 and what cannot be explained
"""
import itertools
import json
import sys

FOREVER = float("inf")
ABSENT = None


def apply(call, value):
    """The values that the name may have after the call; empty: it cannot be here."""
    op, end = call["op"], call.get("end")
    if op == "read":
        seen = call["value"]
        fits = value is not ABSENT if seen is True else value == seen
        return [value] if fits else []
    if op == "create":
        if end == "ok":
            return [call["value"]] if value is ABSENT else []
        if end == "exists":
            return [value] if value is not ABSENT else []
        return [call["value"]] if value is ABSENT else []
    if end == "ok":
        return [ABSENT] if value is not ABSENT or call.get("together") else []
    if end == "absent":
        return [value] if value is ABSENT else []
    return [ABSENT]


def optional(call):
    return call.get("end") == "unknown"


def mark_together(calls):
    removed = [c for c in calls if c["op"] == "unlink" and c["end"] == "ok"]
    for a, b in itertools.combinations(removed, 2):
        if a["from"] <= b["to"] and b["from"] <= a["to"]:
            a["together"] = b["together"] = True


def linearizable(calls):
    """Of one name.  None, or the calls that nothing could come after."""
    calls = sorted((c for c in calls if c.get("end") != "none"), key=lambda c: c["from"])
    ends = [FOREVER if optional(c) else c["to"] for c in calls]
    n = len(calls)
    must = sum(1 << i for i in range(n) if not optional(calls[i]))
    tried = set()
    best, furthest = -1, 0
    stack = [(0, ABSENT)]
    while stack:
        done, value = stack.pop()
        if done & must == must:
            return None
        if (done, value) in tried:
            continue
        tried.add((done, value))
        count = bin(done & must).count("1")
        if count > best:
            best, furthest = count, done
        horizon = min(ends[i] for i in range(n) if not done >> i & 1)
        for i in range(n):
            if calls[i]["from"] > horizon:
                break
            if done >> i & 1:
                continue
            for after in apply(calls[i], value):
                stack.append((done | 1 << i, after))
    left = [calls[i] for i in range(n) if not furthest >> i & 1 and not optional(calls[i])]
    return left[:6]


def rules(sets, gets):
    """None, or words."""
    value = {0: None}
    for s in sorted((s for s in sets if s["end"] == "ok"), key=lambda s: s["version"]):
        if s["version"] in value:
            return f"two sets made version {s['version']}"
        value[s["version"]] = s["value"]
    done = [s for s in sets if s["end"] == "ok"]
    for a in done:
        for b in done:
            if a["to"] < b["from"] and a["version"] >= b["version"]:
                return f"{b} came after {a}"
    unknown = {s["value"]: s for s in sets if s["end"] == "unknown"}
    begun = {s["value"]: s["from"] for s in sets}
    last = {}
    for g in sorted(gets, key=lambda g: g["from"]):
        known = value.get(g["version"], g["value"] if g["value"] in unknown else ABSENT)
        if g["version"] != 0 and known != g["value"]:
            return f"{g} has not the value of its version, {known}"
        value[g["version"]] = known
        if g["value"] in begun and begun[g["value"]] > g["to"]:
            return f"{g} is of the future"
        before = last.get(g["node"])
        if before is not None and before["to"] < g["from"] and before["version"] > g["version"]:
            return f"on one node {g} came after {before}"
        last[g["node"]] = g
    return None


def explain(history):
    """The words of what is wrong, a string each."""
    names, sets, gets, wrong = {}, [], [], []
    for call in history:
        if call["op"] == "set":
            sets.append(call)
        elif call["op"] == "get":
            gets.append(call)
        else:
            names.setdefault(call["name"], []).append(call)
    for name, calls in sorted(names.items()):
        mark_together(calls)
        left = linearizable(calls)
        if left is not None:
            wrong.append(f"{name}: no order of its {len(calls)} calls; nothing lets these come: "
                         + "; ".join(json.dumps(c) for c in left))
    words = rules(sets, gets)
    if words is not None:
        wrong.append(f"rules: {words}")
    return wrong


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as f:
        all_calls = [json.loads(line) for line in f]
    bad = explain(all_calls)
    for w in bad:
        print(w)
    print(f"{len(all_calls)} calls, {len(bad)} that cannot be explained")
    sys.exit(1 if bad else 0)
