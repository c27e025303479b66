"""Waits until a run has committed so many optimizer steps: wait_for_steps.py RUN.sqlite STEPS"""
import sqlite3
import sys
import time

store, wanted = sys.argv[1], int(sys.argv[2])
until = time.monotonic() + 1800
while time.monotonic() < until:
    try:
        reader = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
        if reader.execute("SELECT count(*) FROM steps").fetchone()[0] >= wanted:
            sys.exit()
    except sqlite3.Error:
        pass
    time.sleep(0.5)
sys.exit(f"{store}: not {wanted} steps within half an hour")
