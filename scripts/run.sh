#!/bin/sh
# Builds what is needed, starts a daemon on a private socket and talks to a persona.
#   run.sh [--model FILE|FOLDER] [--persona NAME] [--threads N] [--data FOLDER]
#          [--session N]
# With a terminal: a chat. Without: one fixed turn, whose reply is printed.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

start_seconds_max=120
stop_seconds_max=20

model=
persona=
threads=
data=
session=
while [ $# -gt 0 ]; do
    case $1 in
    --model | --persona | --threads | --data | --session)
        [ $# -ge 2 ] || fail "$1 needs a value"
        case $1 in
        --model) model=$2 ;;
        --persona) persona=$2 ;;
        --threads) threads=$2 ;;
        --data) data=$2 ;;
        --session) session=$2 ;;
        esac
        shift 2
        ;;
    *)
        say "run does not know '$1'"
        say "it takes --model FILE or FOLDER, --persona NAME, --session N, --threads N and"
        fail "--data FOLDER"
        ;;
    esac
done
if [ -n "$model" ]; then
    [ -f "$model" ] || [ -d "$model" ] || fail "--model $model: there is no such file or folder"
    [ -r "$model" ] || fail "--model $model: the file is not readable"
fi

packages_need "$packages_build"
cuda_prepare auto
configure release
if cuda_card_is_seen && [ -n "$(cuda_find)" ]; then
    build release personad persona personad_cuda
else
    build release personad persona
fi
if [ -z "$model" ]; then
    model=$(sh "$root/scripts/model.sh")
fi
[ -n "$data" ] || data=$(data_folder)
mkdir -p "$data"

folder=$(mktemp -d "${TMPDIR:-/tmp}/personad.XXXXXX")
socket=$folder/socket
log=$folder/log
daemon=
client=

stop()
{
    status=$?
    trap '' INT TERM HUP
    trap - EXIT
    [ -z "$client" ] || kill "$client" 2>/dev/null || :
    if [ -n "$daemon" ] && kill "$daemon" 2>/dev/null; then
        tenths=0
        while kill -0 "$daemon" 2>/dev/null && [ "$tenths" -lt $((stop_seconds_max * 10)) ]; do
            sleep 0.1
            tenths=$((tenths + 1))
        done
        if kill -KILL "$daemon" 2>/dev/null; then
            say "the daemon did not stop within $stop_seconds_max seconds and was killed"
        fi
    fi
    daemon_status=0
    [ -z "$daemon" ] || wait "$daemon" || daemon_status=$?
    if [ "$daemon_status" -ne 0 ]; then
        say "the daemon ended with status $daemon_status"
        [ "$status" -ne 0 ] || status=1
    fi
    if [ "$status" -ne 0 ] && [ "$status" -ne 130 ] && [ -s "$log" ]; then
        say "the daemon's log:"
        cat "$log" >&2
    fi
    rm -rf "$folder"
    exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# In a session of its own, so that Ctrl-C reaches the chat and not the daemon.
set -- --model "$model" --socket "$socket" --data "$data" \
    --personas "$root/personas" --persona keeper
[ -z "$threads" ] || set -- "$@" --threads "$threads"
setsid "$root/build/release/bin/personad" "$@" >"$log" 2>&1 </dev/null &
daemon=$!

tenths=0
until grep -q '^personad: ready on ' "$log"; do
    kill -0 "$daemon" 2>/dev/null || fail "the daemon ended before it was ready"
    [ "$tenths" -lt $((start_seconds_max * 10)) ] ||
        fail "the daemon was not ready within $start_seconds_max seconds"
    sleep 0.1
    tenths=$((tenths + 1))
done

# The client runs beside this shell, which so hears a signal at once and can stop the daemon.
exec 3<&0
if [ -t 0 ]; then
    set -- chat
else
    set -- say
fi
set -- "$@" --socket "$socket"
[ -z "$persona" ] || set -- "$@" --persona "$persona"
[ -z "$session" ] || set -- "$@" --session "$session"
[ -t 0 ] || set -- "$@" "Hello! Who are you, and what shall we talk about?"
[ ! -t 0 ] || trap 'interrupted=true' INT
"$root/build/release/bin/persona" "$@" <&3 &
client=$!
# A Ctrl-C belongs to the chat: it only ends the wait, which then begins again.
interrupted=true
status=129
while $interrupted && [ "$status" -gt 128 ]; do
    interrupted=false
    status=0
    wait "$client" || status=$?
done
client=
exit "$status"
