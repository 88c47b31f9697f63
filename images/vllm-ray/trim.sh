#!/bin/sh
# Leave out of the staged Ray what a node that serves never opens. Runs inside the build.
set -eu
cd /stage/usr/local/lib/python3.11/dist-packages/ray

# Java workers, C++ headers, reinforcement learning; numba and llvmlite stay, vLLM wants them.
rm -rf jars include cpp rllib

# Debug symbols: these three are half of Ray.
strip --strip-unneeded core/src/ray/gcs/gcs_server core/src/ray/raylet/raylet _raylet.so
