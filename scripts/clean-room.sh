#!/bin/sh
# Runs the README's commands in a bare Debian 12 that was made for that.
#   clean-room.sh [run|test|cuda|cublas|gpu|base|shell] [--fresh]
#
#   (nothing)  ./dev run </dev/null, then ./dev test
#   cuda       ./dev build --cuda, which has to fetch the compiler, and a look at what it made
#   cublas     ./dev cuda cublas alone, which cuda comes to as well
#   gpu        what ./dev gpu --pack makes on this machine, unpacked and run there without network:
#              to the first call that needs a card, then as a rehearsal
#   base       prints the path of an archive of the bare system, for ./dev image --base
#   shell      a shell in it
#
# The committed tree is cloned into a minimal Debian, where nothing is installed that happens to be
# on this machine; what comes along is only what reaches the network: resolver, certificates, apt's
# sources and proxies, pip's settings. The minimal Debian is kept as an archive (--fresh makes it
# again).
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

suite=bookworm
what="run test"
fresh=false
for word in "$@"; do
    case $word in
    run | test | cuda | cublas | gpu | base | shell) what=$word ;;
    --fresh) fresh=true ;;
    *) fail "clean-room does not know '$word': see the first lines of scripts/clean-room.sh" ;;
    esac
done

[ "$(id -u)" = 0 ] || fail "clean-room needs root, for chroot and mounts: try it with sudo"
packages_need "mmdebstrap git"

folder=$(cache_folder)/clean-room
archive=$folder/$suite.tar
room=$folder/room
mkdir -p "$folder"
exec 8>"$folder/lock"
flock -n 8 || fail "another clean room is in use"

# ---- the bare system ----------------------------------------------------------------------------

# The host's own sources of this suite, so that the same mirrors are reached; else the default.
sources()
{
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.sources \
        /etc/apt/sources.list.d/*.list; do
        if [ -s "$file" ] && grep -q "$suite" "$file"; then
            printf '%s\n' "$file"
        fi
    done
}

make_archive()
{
    say "making a bare Debian ($suite, minbase)"
    # shellcheck disable=SC2046 # a list of files
    mmdebstrap --variant=minbase --format=tar "$suite" "$folder/part.tar" $(sources) >&2 ||
        fail "mmdebstrap could not make the bare system"
    mv -f "$folder/part.tar" "$archive"
}

leave()
{
    status=$?
    trap - EXIT INT TERM HUP
    for mounted in dev sys proc; do
        if mountpoint -q "$room/$mounted"; then
            umount -R -l "$room/$mounted" || exit 1 # or rm would reach the machine's own
        fi
    done
    rm -rf --one-file-system "$room"
    exit "$status"
}

# What reaches the network, and nothing else.
carry_network()
{
    cp -L /etc/resolv.conf /etc/hosts "$room/etc/"
    apt-config dump | grep -E '^Acquire::(http|https|ftp)' >"$room/etc/apt/apt.conf.d/90host" || :
    bundle=etc/ssl/certs/ca-certificates.crt
    if [ -s "/$bundle" ]; then
        # In both places: the second survives when the package makes its bundle anew.
        mkdir -p "$room/etc/ssl/certs" "$room/usr/local/share/ca-certificates"
        cp -L "/$bundle" "$room/$bundle"
        cp -L "/$bundle" "$room/usr/local/share/ca-certificates/host.crt"
    fi
    for file in /etc/pip.conf /etc/xdg/pip/pip.conf "$HOME/.config/pip/pip.conf" \
        "$HOME/.pip/pip.conf"; do
        [ ! -f "$file" ] || cat "$file" >>"$room/etc/pip.conf"
    done
}

# One line NAME=VALUE for each variable that reaches the network.
network_variables()
{
    env | grep -E '^(PIP_[A-Z_]+|[A-Za-z_]+_(proxy|PROXY)|SSL_CERT_FILE|SSL_CERT_DIR)=' || :
}

# Runs a command line in the source inside the room; with `cut` set, without network.
cut=
inside()
{
    set -- HOME=/root LANG=C.UTF-8 TERM="${TERM:-dumb}" CI=true \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
    variables=$(network_variables)
    while IFS= read -r variable; do
        [ -z "$variable" ] || set -- "$variable" "$@"
    done <<END
$variables
END
    ${cut:+unshare --net} chroot "$room" env -i "$@"
}

if $fresh || [ ! -s "$archive" ]; then
    make_archive
fi
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
say "unpacking it into $room"
rm -rf --one-file-system "$room"
mkdir -p "$room"
tar -C "$room" --numeric-owner -xf "$archive"
carry_network
if [ "$what" = base ]; then
    tar -C "$room" --numeric-owner -cf "$folder/part.tar" .
    mv -f "$folder/part.tar" "$folder/base.tar"
    printf '%s\n' "$folder/base.tar"
    exit 0
fi
git -C "$root" diff --quiet HEAD || say "note: only what is committed is tried"
git clone -q --no-hardlinks "$root" "$room/personad" >&2
for mounted in proc sys dev; do
    mount --rbind "/$mounted" "$room/$mounted"
    mount --make-rslave "$room/$mounted"
done

# ---- the README's commands ----------------------------------------------------------------------

# try NAME COMMAND: a command line of ./dev; what it prints is kept under the name.
try()
{
    say "in the clean room: ./dev $2"
    start=$(date +%s)
    inside sh -c "cd /personad && ./dev $2 </dev/null" >"$folder/$1.out" || {
        cat "$folder/$1.out"
        fail "./dev $2 FAILED in the clean room after $(($(date +%s) - start)) s"
    }
    cat "$folder/$1.out"
    say "./dev $2 passed in the clean room in $(($(date +%s) - start)) s"
}

# It is fetched and can be loaded. That of a product needs a card.
look_at_cublas()
{
    try cublas "cuda cublas"
    inside sh -c "LD_LIBRARY_PATH=$(cat "$folder/cublas.out") python3 -c \
        'import ctypes; ctypes.CDLL(\"libcublas.so.13\").cublasGemmEx'" ||
        fail "the cuBLAS that was fetched cannot be loaded"
}

# The library is there, is found by the daemon, and holds what the compiler should make.
look_at_cuda()
{
    [ -f "$room/personad/build/release/lib/libpersonad_cuda.so" ] ||
        fail "./dev build --cuda made no lib/libpersonad_cuda.so"
    inside sh -c "cd /personad && build/release/bin/personad --devices" >"$folder/devices.out" ||
        fail "the daemon could not list its devices"
    cat "$folder/devices.out"
    grep -q '^cuda' "$folder/devices.out" || fail "personad --devices says nothing of cuda"
    if grep -q 'has no CUDA backend' "$folder/devices.out"; then
        fail "the daemon does not find the backend that was built"
    fi
    look_at_cublas
    try sass "sass --check"
}

# check_card WORDS STATUS: the packed check, run with these words, ends so.
check_card()
{
    say "in the clean room, without network: personad-gpu/scripts/gpu.sh $1"
    code=0
    # shellcheck disable=SC2086 # words, or none
    inside sh /there/personad-gpu/scripts/gpu.sh $1 >&2 || code=$?
    cat "$room"/there/personad-gpu/docs/gpu/*.md
    [ $code = "$2" ] || fail "personad-gpu/scripts/gpu.sh $1 ended with $code, and not with $2"
    rm "$room"/there/personad-gpu/docs/gpu/*.md
}

rehearse_gpu()
{
    sh "$root/scripts/gpu.sh" --pack "$folder/pack" >&2
    mkdir "$room/there"
    tar -C "$room/there" -xzf "$folder/pack/personad-gpu.tar.gz"
    cp "$folder"/pack/personad-gpu-model.* "$room/there/personad-gpu/"
    cut=yes
    check_card "" 3 # no card
    check_card --rehearse 0
    cut=
}

for step in $what; do
    case $step in
    run)
        try run run
        grep -q '[[:alpha:]]' "$folder/run.out" || fail "./dev run printed no reply"
        ;;
    test)
        try test test
        tail -n 1 "$folder/test.out" | grep -Eq '^[0-9]+ passed, 0 failed, [0-9]+ skipped$' ||
            fail "the last line of ./dev test is not what it should be"
        ;;
    cuda)
        try cuda "build --cuda"
        look_at_cuda
        ;;
    cublas) look_at_cublas ;;
    gpu) rehearse_gpu ;;
    shell) inside sh -c 'cd /personad && exec bash' || : ;;
    esac
done
