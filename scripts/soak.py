"""What scripts/soak.sh draws, samples and prints.

    soak.py draw SEED "NAME NAME..."     names in an order drawn from the seed, each once a round
    soak.py sample RUN                   one line of CSV a process and look, until it is killed
    soak.py table OUT MINUTES SEED MOUNTS
    soak.py resilience OUT               what became of each fault, of a soak that is over
"""

import collections
import contextlib
import json
import math
import os
import pathlib
import random
import sqlite3
import statistics
import sys
import time

ROUNDS = 50
# I9: the share of its level that throughput has to be back at, and the faults it takes to judge that.
SHARE_MIN = 0.95
FAULTS_MIN = 20
LOOK_EVERY_S = 5
# A process that lived shorter says nothing about growth: it was still loading.
LIFE_MIN_S = 60


def draw(seed, names):
    rng, names = random.Random(int(seed)), names.split()
    for _ in range(ROUNDS):
        rng.shuffle(names)
        print("\n".join(names))


def proc(pid, name):
    return pathlib.Path(f"/proc/{pid}/{name}")


def sample(run):
    state = pathlib.Path(run) / "host.json"
    began = time.monotonic()
    print("at_s,node,pid,rss_kib,descriptors,threads", flush=True)
    while True:
        try:
            host = json.loads(state.read_text())
        except (OSError, ValueError):
            host = {"nodes": [], "host_pid": None}
        processes = [("host", host["host_pid"])] + [(n["name"], n["pid"]) for n in host["nodes"]]
        for name, pid in processes:
            if pid is None:
                continue
            try:
                status = dict(line.split(":\t", 1) for line in proc(pid, "status").read_text().splitlines() if ":\t" in line)
                descriptors = len(os.listdir(proc(pid, "fd")))
                rss = status["VmRSS"].split()[0]
            except (OSError, KeyError):
                continue
            print(f"{time.monotonic() - began:.0f},{name},{pid},{rss},{descriptors},{status['Threads']}", flush=True)
        time.sleep(LOOK_EVERY_S)


def growth(points):
    """Per hour, by least squares; points are (seconds, value)."""
    if len(points) < 3 or points[-1][0] == points[0][0]:
        return None
    slope = statistics.linear_regression([p[0] for p in points], [p[1] for p in points]).slope
    return slope * 3600


def lives(out):
    by_node = collections.defaultdict(lambda: collections.defaultdict(list))
    for line in (out / "samples.csv").read_text().splitlines()[1:]:
        at, node, pid, rss, descriptors, threads = line.split(",")
        by_node[node][pid].append((float(at), int(rss) / 1024, int(descriptors), int(threads)))
    return by_node


def processes_left(out):
    """Processes that still name the run in what they were started with, or work in it."""
    left = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{out}/run" in line or "sandbox-launch" in line:
            left.append(f"{entry.name}: {line.strip()}")
    return left


def quantile(values, share):
    """The smallest value that so many are not greater than."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def student(freedom):
    """The 97.5th percentile of Student's t, by the expansion of Abramowitz and Stegun 26.7.5."""
    z = statistics.NormalDist().inv_cdf(0.975)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def level(tries):
    """Whether throughput was back at its level a stated time after these faults, and in what words.

    As `crrl chaos run` judges many faults: what came back in all windows after faults as a share of what
    came back in those before, with its error over faults (Cochran, Sampling Techniques, eq. 6.13), and a 95 %
    interval of that. Held where all of the interval is at or above 95 %, broken where all of it is below.
    """
    # Where a clock was wrong, so are the history's times.
    pairs = [(o["throughput"][0], o["throughput"][2]) for o in tries if not o["fault"].startswith("clock")]
    before = sum(b for b, _ in pairs)
    if len(pairs) < FAULTS_MIN or before == 0:
        return "not judged", f"{len(pairs)} faults, and it takes {FAULTS_MIN}"
    share = sum(a for _, a in pairs) / before
    squares = sum((a - share * b) ** 2 for b, a in pairs)
    error = math.sqrt(len(pairs) / (len(pairs) - 1) * squares) / before
    low, high = (share + sign * error * student(len(pairs) - 1) for sign in (-1, 1))
    word = "held" if low >= SHARE_MIN else "BROKEN" if high < SHARE_MIN else "not judged"
    return word, f"{share:.0%} ({max(0, low):.0%} to {high:.0%}), by {len(pairs)} faults"


def told_level(rounds, outcomes):
    """One line of I9. Rounds of a build that did not judge it have no windows it could be judged by."""
    within = {round_["throughput"]["within_s"] for round_ in rounds if "throughput" in round_}
    if len(within) != 1 or not all("throughput" in round_ for round_ in rounds):
        return "not judged", "I9 is not judged: no single time is stated after which throughput was measured."
    word, why = level(outcomes)
    return word, f"I9 (episodes/s back at {SHARE_MIN:.0%} of their level {within.pop():g} s after a fault's end): {word}, {why}."


def read_rounds(out):
    return [json.loads(line) for line in (out / "chaos.jsonl").read_text().splitlines()]


def resilience(out):
    out = pathlib.Path(out)
    faults = collections.OrderedDict()
    rounds = read_rounds(out)
    for outcome in (outcome for round_ in rounds for outcome in round_["outcomes"]):
        faults.setdefault(outcome["fault"], []).append(outcome)
    audit = (out / "audit.txt").read_text()
    # I1: every episode is accounted for and ends once; I2: none counts in two steps.
    lost = 0 if all(f"held    {invariant} " in audit for invariant in ("I1", "I2")) else "see the audit"
    # The median is that of the other table.
    both = lambda values: f"{statistics.median(values):.1f} / {quantile(values, 0.99):.1f}" if values else "-"
    print("| fault | survived | missed after, s (p50 / p99) | at work again after its end, s (p50 / p99) "
          "| episodes/s before, during, after (medians) | lost or doubled |\n|---|---|---|---|---|---|")
    for name, tries in sorted(faults.items()):
        good = [o for o in tries if o["fired"] > 0 and o["recovered_s"] is not None]
        missed = [o["noticed_s"] for o in tries if o["noticed_s"] is not None]
        rates = [statistics.median(o["throughput"][i] for o in tries) for i in range(3)]
        # The history's own times were wrong then.
        told = "-" if name.startswith("clock") else ", ".join(f"{rate:.1f}" for rate in rates)
        print(f"| {name} | {len(good)} of {len(tries)} | {both(missed)} | {both([o['recovered_s'] for o in good])} | {told} | {lost} |")
    tries = [o for all_of_one in faults.values() for o in all_of_one]
    print(f"\n{len(tries)} faults of {len(faults)} kinds.\n\n{told_level(rounds, tries)[1]}")


def table(out, minutes, seed, mounts_before):
    out = pathlib.Path(out)
    rounds, faults = read_rounds(out), collections.OrderedDict()
    outcomes = [outcome for round_ in rounds for outcome in round_["outcomes"]]
    for outcome in outcomes:
        faults.setdefault(outcome["fault"], []).append(outcome)
    survived = [o for o in outcomes if o["fired"] > 0 and o["recovered_s"] is not None]
    audit = (out / "audit.txt").read_text().strip()
    events = [json.loads(line) for line in (out / "run" / "events.jsonl").read_text().splitlines()]
    # A clock that was wrong on purpose wrote some of them: the others say which minutes there were.
    finished = sorted((e["at_ms"], e["episode"]) for e in events if e["event"] == "finished")
    middle = finished[len(finished) // 2][0] if finished else 0
    finished = [(at, id) for at, id in finished if abs(at - middle) < 0.7 * 60_000 * max(5, int(minutes))]
    # How long episodes are hangs on what the policy has learned: their tokens are the work.
    with contextlib.closing(sqlite3.connect(f"file:{out}/run/run.sqlite?mode=ro", uri=True)) as store:
        generated = dict(store.execute("SELECT id, generated FROM episodes WHERE generated IS NOT NULL"))
    per_minute, tokens = collections.Counter(), collections.Counter()
    for at, id in finished:
        minute = (at - finished[0][0]) // 60_000
        per_minute[minute] += 1
        tokens[minute] += generated.get(id, 0)
    whole = [per_minute[m] for m in range(max(per_minute, default=0))] or [0]
    half = len(whole) // 2
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "unknown")
    print(f"{minutes} minutes, seed {seed}, {os.cpu_count()} cores ({cpu}), {os.uname().sysname} {os.uname().release}.\n")
    print(f"Faults injected: {len(outcomes)} of {len(faults)} kinds; survived: {len(survived)}.\n")
    print("| fault | survived | at work again after its end, s (median, slowest) |\n|---|---|---|")
    for name, tries in sorted(faults.items()):
        good = [o for o in tries if o in survived]
        times = [o["recovered_s"] for o in good]
        said = f"{statistics.median(times):.1f}, {max(times):.1f}" if times else "-"
        print(f"| {name} | {len(good)} of {len(tries)} | {said} |")
    i9, says = told_level(rounds, outcomes)
    print(f"\n{says}")
    print("\n| process | lives | resident, MiB (first minute, last, most) | growth, MiB/h | descriptors (most) | growth, 1/h |")
    print("|---|---|---|---|---|---|")
    for node, by_pid in sorted(lives(out).items()):
        points = [p for life in by_pid.values() for p in life]
        longest = max(by_pid.values(), key=lambda life: life[-1][0] - life[0][0])
        settled = [p for p in longest if p[0] >= longest[0][0] + LIFE_MIN_S]
        told = lambda value: "-" if value is None else f"{value:+.0f}"
        print(
            f"| {node} | {len(by_pid)} | {longest[0][1]:.0f}, {longest[-1][1]:.0f}, {max(p[1] for p in points):.0f} "
            f"| {told(growth([(p[0], p[1]) for p in settled]))} | {max(p[2] for p in points)} "
            f"| {told(growth([(p[0], p[2]) for p in settled]))} |"
        )
    print(f"\nGrowth is that of the longest life of each, its first {LIFE_MIN_S} s left out.\n")
    print(f"Episodes back by the minute: {', '.join(map(str, whole))}.")
    print(f"Median of the first half {statistics.median(whole[:half] or whole):.0f}, of the second {statistics.median(whole[half:]):.0f}.\n")
    thousands = [tokens[m] / 1000 for m in range(len(whole))]
    print(f"Tokens generated in them, in thousands: {', '.join(f'{t:.0f}' for t in thousands)}.")
    print(f"Median of the first half {statistics.median(thousands[:half] or thousands):.0f}, of the second {statistics.median(thousands[half:]):.0f}.\n")
    print("```text\n" + audit + "\n```\n")
    left = processes_left(out)
    mounts = sum(1 for _ in open("/proc/self/mounts")) - int(mounts_before)
    print(f"Left over: {len(left)} processes, {mounts} mounts.")
    for line in left:
        print(f"- {line}")
    clean = len(survived) == len(outcomes) and outcomes and not left and mounts <= 0 and i9 != "BROKEN"
    sys.exit(0 if clean else 1)


if __name__ == "__main__":
    {"draw": draw, "sample": sample, "table": table, "resilience": resilience}[sys.argv[1]](*sys.argv[2:])
