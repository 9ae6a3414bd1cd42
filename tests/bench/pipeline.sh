#!/bin/sh
# The whole job as a pipeline of other tools, in an empty folder: the service's answers, a list, the files, the bucket,
# and a digest of each.
# usage: pipeline.sh API IDS DOWNLOADER AT-ONCE UPLOADER ENDPOINT
set -eu
api=$1 ids=$2 downloader=$3 at_once=$4 uploader=$5 endpoint=$6
mkdir tasks media
sed "s|.*|url = \"$api/getTaskInfo?promptId=&\"\noutput = \"tasks/&.json\"|" "$ids" > api.conf
curl -q -sS --fail --parallel --parallel-immediate --parallel-max 64 -H "Authorization: Bearer bench" -K api.conf
find tasks -name '*.json' -exec jq -r '.data.imageList[] | .path, .origin' {} + > urls.txt
case $downloader in
aria2)
    aria2c --no-conf -q -i urls.txt -d media -j "$at_once" -x1 --file-allocation=none ;;
curl)
    sed 's/.*/url = "&"/' urls.txt > media.conf
    (cd media && curl -q -sS --fail --parallel --parallel-immediate --parallel-max "$at_once" --remote-name-all -K ../media.conf) ;;
wget2)
    wget2 --no-config -q --http2=off --max-threads="$at_once" -P media -i urls.txt ;;
esac
case $uploader in
rclone)
    rclone copy --config /dev/null media ":s3:bench/archive" --s3-provider Other --s3-env-auth --s3-endpoint "$endpoint" \
        --s3-no-check-bucket --s3-no-head --no-check-dest --transfers 16 --s3-upload-cutoff 16M ;;
s5cmd)
    s5cmd --log error --endpoint-url "$endpoint" --numworkers 32 cp --concurrency 1 --part-size 50 "media/" "s3://bench/archive/" ;;
esac
find media -type f -print0 | xargs -0 -P "$(nproc)" -n 50 sha256sum > SHA256SUMS
