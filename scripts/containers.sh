#!/usr/bin/env bash
# A cluster of three containers with addresses of their own, and what befalls it: it trains; it is planned
# and brought up a second time, which changes nothing; one guest is killed and started again; the other is
# cut off from the network and let back; then the run is judged.
# Needs a Docker engine; where it has no base image and cannot pull one, debootstrap makes it.
# usage: containers.sh
# From the environment: CRRL (a built binary; built here otherwise), BASE (debian:bookworm-slim).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
base=${BASE:-debian:bookworm-slim}
if [ -z "${CRRL:-}" ]; then
    (cd "$root" && cargo build --quiet --release)
    CRRL=${CARGO_TARGET_DIR:-$root/target}/release/crrl
fi
work=$(mktemp -d)
network=crrl-$$ image=crrl-test-$$
names=(coordinator rollout-a rollout-b)
cleanup() {
    for name in "${names[@]}"; do docker rm -f "$network-$name" >/dev/null 2>&1 || true; done
    docker network rm "$network" >/dev/null 2>&1 || true
    docker volume rm "$network-inv" "$network-run" >/dev/null 2>&1 || true
    docker rmi "$image" >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap cleanup EXIT

say() { printf '%4d s  %s\n' "$SECONDS" "$1"; }

"$root/scripts/base-image.sh" "$base"
mkdir "$work/context"
cp "$CRRL" "$work/context/crrl"
strip "$work/context/crrl" 2>/dev/null || true
cp -r "$root/models/small" "$root/docker/coordinator.sh" "$root/docker/guest.sh" "$work/context/"
docker build -q -t "$image" --build-arg "BASE=$base" -f "$root/docker/Dockerfile.binary" "$work/context" >/dev/null
docker network create "$network" >/dev/null
say "image and network are there"

docker run -d --name "$network-coordinator" --hostname coordinator --network "$network" --init \
    -v "$root/docker/cluster.toml:/etc/crrl/cluster.toml:ro" -v "$root/examples/pytree:/etc/crrl/pytree:ro" \
    -v "$network-inv:/invitations" -v "$network-run:/data" --entrypoint coordinator.sh "$image" \
    /etc/crrl/cluster.toml /etc/crrl/pytree rollout-a rollout-b >/dev/null
for guest in rollout-a rollout-b; do
    docker run -d --name "$network-$guest" --hostname "$guest" --network "$network" --init \
        -v "$network-inv:/invitations:ro" --entrypoint guest.sh "$image" "$guest" >/dev/null
done

inside() { docker exec "$network-coordinator" "$@"; }
# Lines of the history with all of these words.
count() {
    local lines
    lines=$(inside cat /data/run/events.jsonl 2>/dev/null || true)
    for word in "$@"; do lines=$(grep -F -- "$word" <<<"$lines" || true); done
    grep -c . <<<"$lines" || true
}
# Waits until there are more such lines than a number.
more_than() {
    local before=$1 deadline=$((SECONDS + 120))
    shift
    until [ "$(count "$@")" -gt "$before" ]; do
        if [ $SECONDS -gt $deadline ]; then
            say "FAILED: no more of: $*"
            for name in "${names[@]}"; do echo "--- $name"; docker logs --tail 15 "$network-$name" 2>&1; done
            exit 1
        fi
        sleep 0.3
    done
}

more_than 0 '"event":"stepped"'
say "trains: the first step is committed"
inside crrl cluster status -f /etc/crrl/cluster.toml || true

fail() {
    say "FAILED: $1"
    exit 1
}
# Every process the host knows, with its restarts, and every container: what must stay as it is.
processes() {
    inside cat /data/run/host.json
    for name in "${names[@]}"; do
        docker inspect -f '{{.Name}} {{.Id}} {{.State.Pid}} {{.State.StartedAt}}' "$network-$name"
    done
}
first=$(docker logs "$network-coordinator" 2>&1)
for node in coordinator learner; do
    grep -q "^start  *$node " <<<"$first" || fail "the first plan did not start $node"
done
before=$(processes)
code=0
second=$(inside crrl cluster plan -f /etc/crrl/cluster.toml --json) || code=$?
[ "$code" -eq 0 ] || fail "the second plan ends with $code and not with 0: $second"
grep -qF '"changes":false' <<<"$second" || fail "the second plan has changes: $second"
again=$(inside crrl cluster up -f /etc/crrl/cluster.toml --json) || fail "the second up: $again"
grep -qF '"did":"nothing"' <<<"$again" || fail "the second up has done something: $again"
after=$(processes)
[ "$before" = "$after" ] || fail "processes or containers are not what they were:
$(diff <(echo "$before") <(echo "$after"))"
say "planned and brought up a second time: nothing to do, and every process and container is the same"

down=$(count '"node_down"' '"rollout-a"')
docker kill "$network-rollout-a" >/dev/null
say "rollout-a was killed"
more_than "$down" '"node_down"' '"rollout-a"'
say "its loss was noticed"
steps=$(count '"event":"stepped"')
more_than $((steps + 1)) '"event":"stepped"'
say "the others went on: two more steps"
up=$(count '"dispatched"' '"to":"rollout-a"')
docker start "$network-rollout-a" >/dev/null
more_than "$up" '"dispatched"' '"to":"rollout-a"'
say "rollout-a is back at work"

down=$(count '"node_down"' '"rollout-b"')
docker network disconnect "$network" "$network-rollout-b"
say "rollout-b was cut off"
more_than "$down" '"node_down"' '"rollout-b"'
say "its loss was noticed"
up=$(count '"dispatched"' '"to":"rollout-b"')
docker network connect "$network" "$network-rollout-b"
more_than "$up" '"dispatched"' '"to":"rollout-b"'
say "rollout-b is back at work"

steps=$(count '"event":"stepped"')
more_than $((steps + 1)) '"event":"stepped"'
inside crrl cluster down -f /etc/crrl/cluster.toml
say "taken down"
docker rm -f "$network-coordinator" >/dev/null
docker run --rm -v "$network-run:/data" "$image" audit /data/run
say "every invariant held"
