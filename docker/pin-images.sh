#!/bin/sh
# Pin the base images in docker/ to the digests that their tags have now. Needs Docker's buildx and the registry.
#   docker/pin-images.sh
set -eu
here=$(cd "$(dirname "$0")" && pwd)
files="$here/Dockerfile $here/compose.yaml $here/compose.monitoring.yaml"
# Lines that name an image of the registry: NAME:TAG, with or without a digest
# shellcheck disable=SC2086
tags=$(sed -n -E 's/^(ARG PYTHON=|FROM |    image: )([a-z0-9.\/-]+:[A-Za-z0-9_.-]+)(@sha256:[0-9a-f]{64})?( AS .*)?$/\2/p' $files |
    sort -u)
[ -n "$tags" ] || { echo "no image is named in $files" >&2; exit 1; }
for tag in $tags; do
    digest=$(docker buildx imagetools inspect "$tag" --format '{{.Manifest.Digest}}')
    printf '%s' "$digest" | grep -Eqx 'sha256:[0-9a-f]{64}' ||
        { echo "$tag: the registry gave no digest but '$digest'; nothing more is changed" >&2; exit 1; }
    for file in $files; do
        sed -E "s#([ =])$tag(@sha256:[0-9a-f]{64})?( AS .*)?\$#\\1$tag@$digest\\3#" "$file" >"$file.new"
        cat "$file.new" >"$file" # keeps the file's mode
        rm "$file.new"
    done
    echo "$tag $digest"
done
