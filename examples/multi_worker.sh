#!/bin/sh
# Two workers on this machine train each network of a search together; on two machines start one worker on each.
#
#     examples/multi_worker.sh [flags of tf-lottery find]
#
# TF_CONFIG names all workers, and which of them a process is. All of them run the same command and see the same results_dir;
# worker 0 writes. If one stops, the others end too, and the same command goes on.
set -eu

port=${PORT:-23450}
cluster="{\"worker\": [\"localhost:$port\", \"localhost:$((port + 1))\"]}"

TF_CONFIG="{\"cluster\": $cluster, \"task\": {\"type\": \"worker\", \"index\": 1}}" \
    tf-lottery find --strategy=multi_worker "$@" &
other=$!
TF_CONFIG="{\"cluster\": $cluster, \"task\": {\"type\": \"worker\", \"index\": 0}}" \
    tf-lottery find --strategy=multi_worker "$@"
wait "$other"
