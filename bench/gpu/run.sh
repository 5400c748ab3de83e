#!/usr/bin/env bash
# Everything there is to run on an NVIDIA card, in one go: bench/gpu/run.sh [OUT.json]
# Builds the addon, the kernels and the native tests; runs the tests that need no card (kernels over the emulation, passes over the
# fake driver); then, where there is a card: its description, whether every kernel is in the file, copy ceilings, what a
# hand-over costs. Ends in a short table and JSON (default: build/gpu.json; results that are kept go to bench/results/).
# Exit code 3: everything that needs no card passed, and there is none here.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-build/gpu.json}
jobs=${JOBS:-$(nproc)}

node scripts/build-native.mjs
node scripts/build-cuda.mjs
cmake -S native -B build/gpu -DTANDEM_TESTS=ON >/dev/null
cmake --build build/gpu --parallel "$jobs" --target native_tests gpu_card
build/gpu/native_tests cuda

kernels=build/tandem-cuda.fatbin
if [ ! -e "$kernels" ]; then
  echo "[gpu] no $kernels: there is no nvcc here; copy the file from where there is one" >&2
  exit 3
fi
version=$(node -p 'const [a, b] = JSON.parse(fs.readFileSync("build/tandem-cuda.json", "utf8")).cuda.split("."); a * 1000 + b * 10')
if [ -z "${TANDEM_CUDA_LIBRARY:-}" ] && ! ldconfig -p | grep -q libcuda.so.1; then
  echo "[gpu] no NVIDIA driver here; what needs no card has passed" >&2
  exit 3
fi
build/gpu/gpu_card "$kernels" "$version" > "$out"
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
node -e '
const [out, commit] = process.argv.slice(1);
const found = { ...JSON.parse(fs.readFileSync(out, "utf8")), commit, date: new Date().toISOString() };
fs.writeFileSync(out, JSON.stringify(found, null, 2) + "\n");
const rate = (bytes) => (bytes / 1e9).toFixed(0) + " GB/s";
const { card, capability, cuda, kernels, bytesPerSecond: copy, handOverMicroseconds: over } = found;
console.log(`${card}, compute capability ${capability}, CUDA ${cuda}, commit ${commit}`);
console.log(`kernels in the file   ${kernels.found} of ${kernels.found + kernels.missing.length}`);
console.log(`copies on the card    ${rate(copy.within)} (by its clocks ${rate(copy.byDataSheet)})`);
console.log(`copies over the bus   ${rate(copy.in)} in, ${rate(copy.out)} out`);
console.log(`a hand-over           ${over.graph.toFixed(1)} us in a graph, ${over.eager.toFixed(1)} us eager (${over.layers} layers, 28 KB each way)`);
console.log(out);
if (kernels.missing.length > 0) process.exit(1);
' "$out" "$commit"
