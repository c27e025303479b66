# What a machine has, for `crrl doctor` elsewhere, where the program is not there yet to say it.
# usage: sh -c "$(cat facts.sh)" crrl GPU FOLDER...    GPU is 1 where NVIDIA's driver is asked as well
gpu=$1
shift
part() { printf '== %s\n' "$1"; }
# Whoever does not answer must not hold the others up: all of it together is given 20 s from outside. BusyBox
# before 1.30 wants -t.
if timeout 2 true >/dev/null 2>&1; then
    within() { timeout 2 "$@"; }
elif timeout -t 2 true >/dev/null 2>&1; then
    within() { timeout -t 2 "$@"; }
else
    within() { "$@"; }
fi
# The first word says whether a command did well, the rest is what it said.
outcome() {
    said=$(within "$@" 2>&1 </dev/null)
    case $? in
        0) printf 'yes %s\n' "$said" ;;
        # Of GNU, and of BusyBox.
        124 | 143) echo "no no answer in 2 s" ;;
        *) printf 'no %s\n' "$said" ;;
    esac
}
# A grep that works, whatever it knows of versions: BusyBox's has none to tell.
greps() { ! within grep --version >/dev/null 2>&1 </dev/null && printf x | within grep -q x 2>/dev/null; }

for program in git bash grep; do
    part "program $program"
    if ! command -v "$program" >/dev/null 2>&1; then
        echo "no it is not there"
    elif [ "$program" = grep ] && greps; then
        echo "yes it tells no version"
    else
        outcome "$program" --version
    fi
done

part limits
cat /proc/self/limits 2>/dev/null

part memory
cat /proc/meminfo 2>/dev/null

part cores
nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null

# The process's own control group and those above it: memory.max pids.max pids.current
part group
own=$(sed -n 's/^0:://p' /proc/self/cgroup 2>/dev/null | head -n 1)
at=/sys/fs/cgroup${own%/}
value() { cat "$at/$1" 2>/dev/null || echo -; }
while :; do
    printf '%s %s %s\n' "$(value memory.max)" "$(value pids.max)" "$(value pids.current)"
    case $at in /sys/fs/cgroup/*) at=${at%/*} ;; *) break ;; esac
done

part namespaces
for name in user/max_user_namespaces kernel/unprivileged_userns_clone \
    kernel/apparmor_restrict_unprivileged_userns; do
    [ -r "/proc/sys/$name" ] && printf '%s %s\n' "$name" "$(cat "/proc/sys/$name")"
done
if command -v unshare >/dev/null 2>&1; then printf 'unshare %s\n' "$(outcome unshare -U true)"; fi

part docker
if command -v docker >/dev/null 2>&1; then outcome docker version --format '{{.Server.Version}}'; fi

part gpu
if [ "$gpu" = 1 ]; then
    if command -v nvidia-smi >/dev/null 2>&1; then
        outcome nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
    else
        echo "no nvidia-smi is not there"
    fi
fi

# Free KiB where a folder is or will be, whether that can be written, and what was looked at. A file system whose
# server is gone answers nothing, ever; after two of those the rest is not asked.
is() { within sh -c 'test "$@"' sh "$@" 2>/dev/null; }
deaf=0
for folder in "$@"; do
    part "folder $folder"
    case $folder in /*) at=$folder ;; *) at=$HOME/$folder ;; esac
    may=no free=
    if [ "$deaf" -lt 2 ]; then
        while is ! -e "$at"; there=$?; [ "$there" = 0 ] && [ "$at" != / ]; do at=$(dirname "$at"); done
        if [ "$there" -gt 1 ]; then
            deaf=$((deaf + 1))
        else
            is -w "$at" && may=yes
            free=$(within df -Pk "$at" 2>/dev/null | sed -n '$s/.* \([0-9][0-9]*\)  *[0-9][0-9]*% .*/\1/p')
        fi
    fi
    printf '%s %s %s\n' "${free:--}" "$may" "$at"
done
exit 0
