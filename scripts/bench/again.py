"""From a run's history: after a node was lost, how long until each of its episodes was out again.

usage: again.py EVENTS.JSONL    prints one line: losses, episodes, p50, p99 and the longest, in seconds
"""

import json
import sys


def main() -> None:
    down = {}  # node -> when it was lost last
    waits = {}  # episode -> when its node was lost
    again = []
    losses = 0
    with open(sys.argv[1], encoding="utf-8") as lines:
        for line in lines:
            event = json.loads(line)
            match event["event"]:
                case "node_down":
                    down[event["peer"]] = event["at_ms"]
                    losses += 1
                # Written down with the loss; the clock may tick in between.
                case "lease_lost" if event["at_ms"] - down.get(event["from"], 0) <= 5:
                    waits[event["episode"]] = event["at_ms"]
                case "dispatched" if event["episode"] in waits:
                    again.append(event["at_ms"] - waits.pop(event["episode"]))
    again.sort()
    if not again:
        print(f"{losses} losses, no episode was out")
        return
    at = lambda share: again[round((len(again) - 1) * share)] / 1000
    print(
        f"{losses} losses, {len(again)} episodes out again after {at(0.5):.3f} s (p50), "
        f"{at(0.99):.3f} s (p99), {at(1):.3f} s (longest); {len(waits)} not yet"
    )


if __name__ == "__main__":
    main()
