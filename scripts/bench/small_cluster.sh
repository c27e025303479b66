# Sourced: tasks and a cluster.toml for the shipped policy on bugs put into the tree that ships with the
# project.   small_cluster ROOT OUT STEPS GROUP_SIZE GROUPS_PER_STEP CONCURRENCY
# Needs CRRL, a built binary. Writes OUT/tasks.jsonl and OUT/cluster.toml. SERVER=apart makes the parameter
# server a node of its own.
small_cluster() {
    local root=$1 out=$2 steps=$3 group_size=$4 groups=$5 concurrency=$6
    "$CRRL" tasks mutate "$root/examples/pytree" -n 300 --lines-max 12 -o "$out/tasks.jsonl" 2>"$out/tasks.log"
    cat >"$out/cluster.toml" <<CONFIG
[run]
dir = "$out/run"
steps = $steps
[model]
path = "$root/models/small"
[tasks]
train = "$out/tasks.jsonl"
[agent]
prompt = "brief"
calls_max = 4
tokens_max = 512
turn_tokens_max = 160
time_max_s = 30.0
output_chars_max = 800
nudges_max = 0
[reward]
edit = 0.2
[rollout]
group_size = $group_size
groups_per_step = $groups
concurrency = $concurrency
lease_s = 60.0
skip_equal_groups = false
[learner]
micro_batch_tokens = 8192
[cluster]
# Faults come closer together in a benchmark than a host should put up with.
restarts_max = 1000
CONFIG
    if [ "${SERVER:-}" = apart ]; then
        # The default nodes, but for the parameter server.
        cat >>"$out/cluster.toml" <<CONFIG
[[node]]
name = "coordinator"
roles = ["coordinator"]
[[node]]
name = "parameter-server"
roles = ["parameter-server"]
[[node]]
name = "learner"
roles = ["learner"]
threads = 0
[[node]]
name = "rollout-0"
roles = ["rollout"]
[[node]]
name = "rollout-1"
roles = ["rollout"]
CONFIG
    fi
}
