#!/usr/bin/env python3
"""Writes tests/parity/difflib.json: pairs of change texts and the ratio Python's difflib gives them.

The texts are the added and removed lines of diffs: functions of this project's own Python
(examples/pytree and the scripts) against mutated copies of themselves and against each other.
Deterministic for one Python version. Needs nothing but Python:

    python3 tests/parity/difflib_fixture.py
"""

import ast
import difflib
import json
import pathlib
import random
import sys

PAIRS = 160
CHARS_MAX = 2600
SEED = 7

MUTATIONS = [
    (" == ", " != "), (" is None", " is not None"), (" and ", " or "), (" < ", " <= "),
    ("return ", "return not "), ("True", "False"), ("self.", "cls."), ("if not ", "if "),
    ("0", "1"), (" + ", " - "), ("'", '"'), ("len(", "sum("), (" in ", " not in "),
]


def functions():
    root = pathlib.Path(__file__).resolve().parents[2]
    paths = [*root.glob("examples/pytree/**/*.py"), *root.glob("scripts/**/*.py"), *root.glob("tests/**/*.py")]
    for path in sorted(paths):
        text = path.read_text(encoding="utf-8", errors="replace")
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and 4 <= node.end_lineno - node.lineno <= 60:
                yield lines[node.lineno - 1 : node.end_lineno]


def mutate(rng, lines):
    lines = list(lines)
    for _ in range(rng.randint(1, 6)):
        kind = rng.randrange(5)
        at = rng.randrange(len(lines))
        if kind == 0 and len(lines) > 3:
            del lines[at]
        elif kind == 1:
            lines.insert(at, lines[rng.randrange(len(lines))])
        elif kind == 2:
            lines[at] = lines[at] + "  # größer ≥ 0 \N{BUG}"
        else:
            old, new = rng.choice(MUTATIONS)
            lines = [line.replace(old, new, 1) if rng.random() < 0.4 else line for line in lines]
    return lines


def changes(before, after):
    diff = list(difflib.unified_diff(before, after, lineterm=""))[2:]
    return "\n".join(line for line in diff if line[:1] in "+-" and line)


def main():
    rng = random.Random(SEED)
    pool = list(functions())
    rng.shuffle(pool)
    pairs = []
    for index, base in enumerate(pool):
        if len(pairs) == PAIRS:
            break
        gold = changes(base, mutate(rng, base))
        if index % 3 == 0:
            other = changes(base, mutate(rng, base))
        elif index % 3 == 1:
            other = changes(base, mutate(rng, mutate(rng, base)))
        else:
            # A rewrite: long texts, where frequent characters are junk.
            gold = changes(base, pool[(index + 1) % len(pool)])
            other = changes(base, mutate(rng, pool[(index + 1) % len(pool)]))
        if gold and other and gold != other and max(len(gold), len(other)) <= CHARS_MAX:
            pairs.append((gold, other))
    fixture = {
        "python": sys.version.split()[0],
        "pairs": [
            {"a": a, "b": b, "ratio": difflib.SequenceMatcher(None, a, b).ratio()} for a, b in pairs
        ],
    }
    out = pathlib.Path(__file__).with_name("difflib.json")
    out.write_text(json.dumps(fixture, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
    lengths = sorted(len(b) for _, b in pairs)
    print(f"{len(pairs)} pairs, b of {lengths[0]}..{lengths[-1]} characters, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
