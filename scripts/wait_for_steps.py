"""Waits until a run has committed so many optimizer steps, or so many more: wait_for_steps.py RUN.sqlite STEPS|+MORE"""
import sqlite3
import sys
import time

store, wanted = sys.argv[1], sys.argv[2]


def steps():
    try:
        reader = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
        return reader.execute("SELECT count(*) FROM steps").fetchone()[0]
    except sqlite3.Error:
        return None


goal = int(wanted) + ((steps() or 0) if wanted.startswith("+") else 0)
until = time.monotonic() + 1800
while time.monotonic() < until:
    if (steps() or 0) >= goal:
        sys.exit()
    time.sleep(0.5)
sys.exit(f"{store}: not {goal} steps within half an hour")
