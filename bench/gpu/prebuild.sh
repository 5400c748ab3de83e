#!/usr/bin/env bash
# What bench/gpu/run.sh takes along to a machine where nothing can be built or fetched: bench/gpu/prebuild.sh DIR, then there
# RUN_PREBUILT=DIR bench/gpu/run.sh. Programs with their C++ runtime inside, the tape of models, the kernels. ARCH=90 compiles the kernels for
# one card alone (3 MiB instead of 9).
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
out=${1:?usage: bench/gpu/prebuild.sh DIR}
jobs=${JOBS:-$(nproc)}
mkdir -p "$out"
cmake -S "$root/bench/gpu" -B "$root/build/gpu" >/dev/null
cmake --build "$root/build/gpu" --parallel "$jobs"
cmake -S "$root/native" -B "$root/build/gpu-models" -DTANDEM_TESTS=ON >/dev/null
cmake --build "$root/build/gpu-models" --parallel "$jobs" --target gpu_replay
node "$root/bench/gpu/record.mjs" "$root/build/gpu/models.tape"
node "$root/scripts/build-cuda.mjs" ${ARCH:+--arch "$ARCH"}
for program in "$root"/build/gpu/gpu_card "$root"/build/gpu/gpu_kernels "$root"/build/gpu-models/gpu_replay; do
  strip -o "$out/$(basename "$program")" "$program"
done
xz -9 -c "$root/build/gpu/models.tape" >"$out/models.tape.xz"
cp "$root/build/tandem-cuda.fatbin" "$root/build/tandem-cuda.json" "$out/"
du -sh "$out"
