#!/bin/bash
# Entry of a guest's container: waits for its invitation in /invitations, and joins.
# usage: guest.sh NAME [MODEL_DIR]
set -euo pipefail
name=$1 model=${2:-/usr/share/crrl/small}
until [ -f "/invitations/$name.join" ]; do sleep 0.2; done
exec crrl node --join "/invitations/$name.join" --dir "/data/$name" --model "$model" --threads 1
