#!/usr/bin/env bash
# Makes the base image of tests in containers where there is none and none can be pulled: Debian with git,
# bash and grep, by debootstrap.
# usage: base-image.sh [NAME]        debian:bookworm-slim
set -euo pipefail
base=${1:-debian:bookworm-slim}
docker image inspect "$base" >/dev/null 2>&1 && exit
docker pull -q "$base" >/dev/null 2>&1 && exit
echo "no $base here or in a registry: making one with debootstrap"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
debootstrap --variant=minbase --include=git,bash,grep,procps bookworm "$work/rootfs" >"$work/log" || {
    tail -5 "$work/log" >&2
    exit 1
}
tar -C "$work/rootfs" -c . | docker import - "$base" >/dev/null
