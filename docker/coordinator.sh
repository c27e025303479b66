#!/bin/bash
# Entry of the container with the coordinator: brings its nodes up, writes an invitation for each guest
# into /invitations, and stays until it is told to stop.
# usage: coordinator.sh CLUSTER_TOML TASK_SOURCE GUEST...
set -euo pipefail
config=$1 source=$2
shift 2
mkdir -p /data /invitations
[ -f /data/tasks.jsonl ] || crrl tasks mutate "$source" -n 300 --lines-max 12 -o /data/tasks.jsonl
# What is about to be done, for the log; 3 says that there is something to do.
crrl cluster plan -f "$config" || [ $? -eq 3 ]
# The guests of the configuration are not there yet: nobody waits for them.
crrl cluster up -f "$config" --wait 60
address=$(hostname -i | awk '{print $1}')
for guest in "$@"; do
    rm -f "/invitations/$guest.join"
    crrl cluster invite "$guest" -f "$config" --address "$address" -o "/invitations/$guest.part"
    # Whole at once: the guest looks for it.
    mv "/invitations/$guest.part" "/invitations/$guest.join"
done
trap 'crrl cluster down -f "$config"; exit 0' TERM INT
crrl cluster logs --file "$config" -f &
wait $!
