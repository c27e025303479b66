#!/usr/bin/env bash
# Makes the pictures of docs/INSPECTOR.md and of the README: scripts/inspector_shots.sh
#
# The small policy is trained for a few minutes in a temporary folder and looked at meanwhile. Needs tmux
# and python3. From the environment: CRRL (a built binary; built here otherwise).
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${CRRL:-}" ]; then
    cargo build --quiet --release
    CRRL=${CARGO_TARGET_DIR:-target}/release/crrl
fi
crrl=$(realpath "$CRRL")
images=${IMAGES:-docs/images}
columns=120 lines=34
work=$(mktemp -d)
socket=crrl-shots-$$
pids=()
finish() {
    mux kill-server 2>/dev/null || true
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap finish EXIT
mux() { LC_ALL=C.UTF-8 tmux -u -L "$socket" "$@"; }

# Waits until all of these are on the screen.
until_seen() {
    for _ in $(seq 2400); do
        mux capture-pane -p >"$work/seen"
        local missing=
        for text in "$@"; do grep -qF -- "$text" "$work/seen" || missing=$text; done
        [ -n "$missing" ] || return 0
        sleep 0.05
    done
    echo "this did not come: $missing" >&2
    cat "$work/seen" >&2
    return 1
}
keys() { mux send-keys "$@"; }
types() { mux send-keys -l "$1"; }
shot() { mux capture-pane -e -p | python3 scripts/terminal_svg.py "$columns" >"$images/inspector-$1.svg"; }

run=$work/small
cat >"$work/cluster.toml" <<TOML
[run]
dir = "small"
steps = 200
[model]
path = "$PWD/models/small"
[tasks]
train = "tasks.jsonl"
[agent]
prompt = "brief"
tokens_max = 1024
turn_tokens_max = 256
[rollout]
group_size = 4
groups_per_step = 2
concurrency = 4
TOML
(cd "$work" && "$crrl" tasks mutate "$OLDPWD/examples/pytree" -o tasks.jsonl -n 60 >/dev/null)
(cd "$work" && exec "$crrl" train -f cluster.toml >/dev/null 2>"$work/train") &
pids+=($!)
until [ -f "$run/run.sqlite" ]; do sleep 0.2; kill -0 "${pids[0]}" || { cat "$work/train"; exit 1; }; done
mux -f /dev/null new-session -d -x "$columns" -y "$lines" "TERM=screen-256color '$crrl' inspect --run '$run'; exec cat"
until_seen "● live" "training"

# In the middle of the training.
python3 scripts/wait_for_steps.py "$run/run.sqlite" 4
keys 1
until_seen "LAST EPISODES" "rollout-1"
shot overview

keys 2 ":"
until_seen "COMMANDS"
types "sort act w"
until_seen "sort actors by waiting"
shot commands
keys Enter
until_seen "▾" "rollout-0"

types "/node:rollout-0 name:^rollout$"
keys Enter
until_seen "shown:"
keys t
until_seen "rollout-0/rollout" "handled"
until_seen "of 1000 messages"
shot trace
keys Escape

keys 7
until_seen "gradient norm" "loss"
shot curves

# An episode that was trained on, token by token.
keys 6
until_seen "EPISODE" "trained"
types "/state:trained reward>0"
keys Enter
until_seen "shown:"
keys g Enter
until_seen "TURN 1" "tokens by log-probability"
shot episode
keys q
