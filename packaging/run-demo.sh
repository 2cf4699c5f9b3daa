#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# run-demo.sh BUILD: a private service on the software IOMMU, one example client, what the operator sees, and a clean stop.
# Called by `make run`. Needs no privilege; everything it makes is in one temporary folder that it removes.
set -euo pipefail

build=$1
home=$(mktemp -d "${TMPDIR:-/tmp}/iommud-run-XXXXXX")
service=

stop() {
        if [ -n "$service" ]; then
                kill "$service" 2> /dev/null || true
                wait "$service" 2> /dev/null || true
        fi
        rm -rf "$home"
}
trap stop EXIT

say() {
        if [ -t 1 ]; then printf '\n\033[1m%s\033[0m\n\n' "$1"; else printf '\n%s\n\n' "$1"; fi
}

say "iommud, with its embedded default: software IOMMU, private ledger, private sockets"
"$build/iommud" --private="$home" 2> "$home/log" &
service=$!
for _ in $(seq 100); do
        [ -S "$home/run/client/grpc.sock" ] && [ -S "$home/run/operator/operator.sock" ] && break
        kill -0 "$service" 2> /dev/null || { cat "$home/log"; exit 1; }
        sleep 0.05
done
export IOMMUD_DIR=$home/run/client IOMMUD_OPERATOR_SOCKET=$home/run/operator/operator.sock
"$build/iommuctl" status

say "A client drives a device; it needs no privilege (sdk/examples/drive_edu.c)"
"$build/examples/drive_edu"

say "What the operator sees afterwards: nothing is left, and the ledger agrees"
"$build/iommuctl" tenant list
"$build/iommuctl" ledger check

say "Stopping"
kill "$service"
status=0
wait "$service" || status=$?
service=
if [ "$status" -ne 0 ]; then
        cat "$home/log"
        echo "iommud ended with status $status"
        exit "$status"
fi
echo "iommud stopped cleanly."
