#!/usr/bin/env bash
# What bench/gpu/run.sh takes along to a machine where nothing can be built or fetched: bench/gpu/prebuild.sh DIR, then there
# RUN_PREBUILT=DIR bench/gpu/run.sh. Programs with their C++ runtime inside, the tape of models, the kernels: about 15 MB.
#
#   ARCH=90      kernels for one card alone (3 MiB instead of 9)
#   WITH_NODE=1  Node and the command line too (30 MB more), so that whole models of real shapes are measured; after npm run build
#
# What is made lies in DIR at once, also where a later step fails. Exit code: 0 all is there, 1 something is not, and which.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "${1:?usage: bench/gpu/prebuild.sh DIR}"
out=$(cd "$1" && pwd)
jobs=${JOBS:-$(nproc)}
command -v make >/dev/null || export CMAKE_GENERATOR=Ninja
missing=()

# made NAME COMMAND…
made() {
  local name=$1
  shift
  echo "[gpu] $name" >&2
  "$@" >&2 || { missing+=("$name"); echo "[gpu] $name failed" >&2; }
}

programs() {
  cmake -S "$root/bench/gpu" -B "$root/build/gpu" >/dev/null && cmake --build "$root/build/gpu" --parallel "$jobs" &&
    strip -o "$out/gpu_card" "$root/build/gpu/gpu_card" && strip -o "$out/gpu_kernels" "$root/build/gpu/gpu_kernels"
}
kernels() {
  node "$root/scripts/build-cuda.mjs" ${ARCH:+--arch "$ARCH"} && cp "$root/build/tandem-cuda.fatbin" "$root/build/tandem-cuda.json" "$out/"
}
models() {
  cmake -S "$root/native" -B "$root/build/gpu-models" -DTANDEM_TESTS=ON >/dev/null &&
    cmake --build "$root/build/gpu-models" --parallel "$jobs" --target gpu_replay && strip -o "$out/gpu_replay" "$root/build/gpu-models/gpu_replay"
}
tape() {
  [ -e "$root/build/tandem.node" ] || { echo "[gpu] models are placed by the addon; npm run build:native makes it" >&2; return 1; }
  node "$root/bench/gpu/record.mjs" "$root/build/gpu/models.tape" && xz -9 -c "$root/build/gpu/models.tape" >"$out/models.tape.xz"
}
command_line() {
  [ -e "$root/dist/cli.js" ] && [ -e "$root/build/tandem.node" ] || { echo "[gpu] the command line is built first: npm run build" >&2; return 1; }
  local work
  work=$(mktemp -d) || return 1
  mkdir -p "$work/app/build" && cp "$(command -v node)" "$work/app/node" && strip "$work/app/node" && cp -r "$root/dist" "$root/rules" "$root/package.json" "$work/app/" &&
    strip -o "$work/app/build/tandem.node" "$root/build/tandem.node" &&
    (cd "$root" && npm ls --omit=dev --all --parseable 2>/dev/null | sed "1d; s|^$root/||" | tar -cf - -T -) | tar -xf - -C "$work/app" &&
    tar -C "$work" -cf - app | xz -6 -T0 >"$out/app.tar.xz"
  local code=$?
  rm -rf "$work"
  return $code
}

git -C "$root" rev-parse --short HEAD >"$out/commit" 2>/dev/null || echo unknown >"$out/commit"
made kernels kernels
made programs programs
made models models
made tape tape
[ -z "${WITH_NODE:-}" ] || made command-line command_line
libc=$(objdump -T "$out"/gpu_* | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
echo "[gpu] $(du -sh "$out" | cut -f 1) in $out; needs ${libc:-an unknown libc} and x86-64"
[ ${#missing[@]} = 0 ] || { echo "[gpu] not there: ${missing[*]}" >&2; exit 1; }
