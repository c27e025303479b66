"""Table of async_against_sync.sh: OUT ROUNDS STEPS TOOLS_MS."""
import json
import math
import statistics
import sys

out, rounds, steps, tools_ms = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]


def runs(sync):
    return [json.load(open(f"{out}/{sync}-{r}/results.json")) for r in range(1, rounds + 1)]


def wall(run):
    return run["trainings"][0]["wall_ms"] / 1000


def rewards(run):
    """Mean reward of each held-out task after training."""
    after = run["evaluations"][-1]["tasks"]
    earned = lambda task: [a["reward"] for a in task["attempts"] if a is not None]
    return {task["task"]: statistics.mean(earned(task)) for task in after if earned(task)}


both = {"in turns (sync)": runs("true"), "asynchronous": runs("false")}
print("| loop | wall of the training phase, s, median | all | reward on held-out tasks |\n|---|---|---|---|")
for name, of in both.items():
    walls = [wall(run) for run in of]
    reward = statistics.mean(statistics.mean(rewards(run).values()) for run in of)
    every = ", ".join(f"{w:.1f}" for w in walls)
    print(f"| {name} | {statistics.median(walls):.1f} | {every} | {reward:.3f} |")
a, b = (statistics.median(map(wall, of)) for of in both.values())
# Each task's difference, the rounds taken together: tasks are what the interval is over.
means = []
for of in both.values():
    per_task = [rewards(run) for run in of]
    tasks = set.intersection(*map(set, per_task))
    means.append({t: statistics.mean(r[t] for r in per_task) for t in tasks})
common = sorted(means[0].keys() & means[1].keys())
differences = [means[1][t] - means[0][t] for t in common]
half = 1.96 * statistics.stdev(differences) / math.sqrt(len(differences))
print(f"\n{a / b:.2f} times as fast; {steps} steps of 8 groups of 8, {rounds} rounds, alternating", end="")
print(f"; tool calls {tools_ms} ms longer in the mean" if tools_ms != "0" else "")
print(
    f"reward of the asynchronous loop less the other's: {statistics.mean(differences):+.3f} "
    f"(95 % interval {statistics.mean(differences) - half:+.3f} to {statistics.mean(differences) + half:+.3f}, "
    f"{len(common)} tasks)"
)
