"""Each leg of an adapter's hand-over in a run, from the logs of its nodes: a Markdown table of medians.

usage: hand_over.py RUN
All from the moment the learner had the adapter's bytes ("packed"). Nodes of one machine share a clock.
"""

import datetime
import glob
import re
import statistics
import sys

LEGS = [
    ("the checkpoint is on disk", "the learner's checkpoint is on disk"),
    ("an adapter is here", "an engine has fetched and verified it"),
    ("published", "published: durable at the parameter server too"),
    ("an adapter is served", "an engine serves it"),
]


def lines(run):
    for path in glob.glob(f"{run}/logs/*.log"):
        for line in open(path, errors="replace"):
            found = re.match(r"(\S+)Z\s+INFO .*crrl_actors::\w+: (.*?) version=(\d+)(?: bytes=(\d+))?", line)
            if found:
                at = datetime.datetime.fromisoformat(found.group(1))
                yield found.group(2), int(found.group(3)), at.timestamp(), found.group(4)


def main():
    packed, legs, size = {}, {}, set()
    for said, version, at, size_of in lines(sys.argv[1]):
        if said == "packed":
            packed[version] = at
            size.add(int(size_of))
        else:
            legs.setdefault(said, []).append((version, at))
    if not packed:
        sys.exit(f"{sys.argv[1]}: no log tells of an adapter; CRRL_LOG must let info pass")
    size = ", ".join(f"{bytes / 1e6:.1f} MB" for bytes in sorted(size))
    print(f"\nhand-over of {len(packed)} adapters of {size}; ms after the learner had the bytes")
    print("| until | p50 | p90 | n |\n|---|---|---|---|")
    for said, name in LEGS:
        times = [(at - packed[v]) * 1e3 for v, at in legs.get(said, []) if v in packed]
        if times:
            ninety = sorted(times)[int(0.9 * (len(times) - 1))]
            print(f"| {name} | {statistics.median(times):.0f} | {ninety:.0f} | {len(times)} |")


main()
