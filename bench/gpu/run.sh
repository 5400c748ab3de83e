#!/usr/bin/env bash
# Everything there is to run on an NVIDIA card, in one go: bench/gpu/run.sh [OUT.json]
#
# Part after part, each with a time of its own: what fails or hangs is told, and the rest goes on. After every part all that is known so
# far lies in OUT.json (default build/gpu.json) and OUT.txt, the table. Results that are kept go to bench/results/, with the card's name.
#
#   RUN_PREBUILT=DIR   takes the programs and the kernels from there and builds nothing (bench/gpu/prebuild.sh DIR makes it)
#   RUN_PARTS="a b"    these parts alone
#   RUN_FAKE=1         over the fake driver, with little sizes: tries the script where there is no card; its times mean nothing
#   RUN_SECONDS=570    parts that would begin later than this are left out
#
# Without Node the parts of programs in C++ run, and those of whole models are left out. Exit code: 0 all passed, 1 a part failed,
# 3 there is no card here.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
out=${1:-$root/build/gpu.json}
text=${out%.json}.txt
work=$(mktemp -d)
running=
trap '[ -z "$running" ] || kill -KILL -- "-$running" 2>/dev/null; rm -rf "$work"' EXIT
limit=${RUN_SECONDS:-570}
parts=${RUN_PARTS:-}
names=()
failed=0
[ -n "${RUN_PREBUILT:-}" ] && RUN_PREBUILT=$(cd "$RUN_PREBUILT" && pwd)
mkdir -p "$(dirname "$out")"

node=$(command -v node || true)
[ -z "$node" ] && [ -x "${RUN_PREBUILT:-/nowhere}/node" ] && node=$RUN_PREBUILT/node

# What is known so far.
write() {
  {
    printf '{"date": "%s", "commit": "%s", "seconds": %s, "parts": {' "$(date -u +%FT%TZ)" "$(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown)" "$SECONDS"
    local first=1 name
    for name in ${names[@]+"${names[@]}"}; do
      [ $first = 1 ] || printf ','
      first=0
      printf '\n"%s": {"code": %s, "seconds": %s, "found": ' "$name" "$(cat "$work/$name.code")" "$(cat "$work/$name.seconds")"
      if [ -s "$work/$name.json" ]; then cat "$work/$name.json"; else printf null; fi
      printf '}'
    done
    printf '\n}}\n'
  } >"$out.part" && mv "$out.part" "$out"
  : >"$text"
  for name in ${names[@]+"${names[@]}"}; do
    printf '== %s: %s, %s s\n' "$name" "$(cat "$work/$name.word")" "$(cat "$work/$name.seconds")"
    grep -v '^ok ' "$work/$name.log" | tail -n 120
  done >>"$text"
}

# limited SECONDS COMMAND…: with all that it started it is over by then, or it is left behind: what waits inside a driver may not die.
limited() {
  local end=$((SECONDS + $1)) code
  shift
  setsid "$@" &
  running=$!
  while kill -0 "$running" 2>/dev/null; do
    if [ "$SECONDS" -ge "$end" ]; then
      kill -TERM -- "-$running" 2>/dev/null
      sleep 2
      kill -KILL -- "-$running" 2>/dev/null
      sleep 1
      disown "$running" 2>/dev/null
      running=
      return 124
    fi
    sleep 0.2
  done
  wait "$running"
  code=$?
  running=
  return $code
}

# part NAME SECONDS COMMAND…: JSON on stdout, lines for people on stderr.
part() {
  local name=$1 seconds=$2 start=$SECONDS code word
  shift 2
  if [ -n "$parts" ] && [[ " $parts " != *" $name "* ]]; then return 0; fi
  if [ "$SECONDS" -ge "$limit" ]; then
    echo "[gpu] $name is left out: $limit s have passed" >&2
    return 0
  fi
  echo "[gpu] $name" >&2
  limited "$seconds" "$@" >"$work/$name.json" 2>"$work/$name.log"
  code=$?
  case $code in
    0) word=passed ;;
    124) word="took more than $seconds s" ;;
    *) word="failed ($code)" ;;
  esac
  [ $code = 0 ] || failed=1
  # Only whole JSON is kept.
  case $(tail -c 2 "$work/$name.json") in *'}' | *']') ;; *) : >"$work/$name.json" ;; esac
  echo $code >"$work/$name.code"
  echo $((SECONDS - start)) >"$work/$name.seconds"
  echo "$word" >"$work/$name.word"
  names+=("$name")
  [ $code = 0 ] || { echo "[gpu] $name $word" >&2; tail -n 5 "$work/$name.log" >&2; }
  write
  return $code
}

programs=${RUN_PREBUILT:-$root/build/gpu}
kernels=${RUN_PREBUILT:-$root/build}/tandem-cuda.fatbin
small=()

build() {
  cmake -S "$root/bench/gpu" -B "$root/build/gpu" >/dev/null && cmake --build "$root/build/gpu" --parallel "${JOBS:-$(nproc)}" >&2
}
build_models() {
  cmake -S "$root/native" -B "$root/build/gpu-models" -DTANDEM_TESTS=ON >/dev/null &&
    cmake --build "$root/build/gpu-models" --parallel "${JOBS:-$(nproc)}" --target gpu_replay >&2 && cp "$root/build/gpu-models/gpu_replay" "$root/build/gpu/"
}
build_kernels() {
  if [ -n "$node" ]; then "$node" "$root/scripts/build-cuda.mjs"; else
    echo "[gpu] no Node: the kernels are compiled for this card alone" >&2
    nvcc -std=c++20 -O3 -fatbin -arch=native -I "$root/native" -o "$kernels" "$root/native/cuda/kernels/kernels.cu" &&
      printf '{"cuda":"%s"}\n' "$(nvcc --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')" >"$root/build/tandem-cuda.json"
  fi
}
export -f build build_kernels build_models
export root node kernels

if [ -z "${RUN_PREBUILT:-}" ]; then
  part build 300 bash -c build || { cat "$text"; exit 1; }
  part build-models 300 bash -c build_models
  [ -z "$node" ] || "$node" "$root/bench/gpu/record.mjs" "$root/build/gpu/models.tape" || echo "[gpu] no tape of models (npm run build first)" >&2
fi
if [ -n "${RUN_FAKE:-}" ]; then
  small=(small)
  [ -n "${RUN_PREBUILT:-}" ] || cmake --build "$root/build/gpu" --target fake_cuda >/dev/null
  export TANDEM_CUDA_LIBRARY=$programs/libfake_cuda.so TANDEM_FAKE_CUDA='gpus=2;memory=4000000000'
  kernels=$work/kernels
  : >"$kernels"
elif [ -z "${TANDEM_CUDA_LIBRARY:-}" ] && ! { ldconfig -p | grep -q libcuda.so.1 || [ -e /usr/lib/wsl/lib/libcuda.so.1 ]; }; then
  echo "[gpu] no NVIDIA driver here" >&2
  exit 3
elif [ -z "${RUN_PREBUILT:-}" ] && ! { [ -e "$kernels" ] && ! find "$root/native/cuda/kernels" "$root/native/quant" -newer "$kernels" | grep -q .; }; then
  part kernels-build 420 bash -c build_kernels || { cat "$text"; exit 1; }
fi
version=$(sed -n 's/.*"cuda": *"\([0-9]*\)\.\([0-9]*\)".*/\1 \2/p' "$(dirname "$kernels")/tandem-cuda.json" 2>/dev/null | awk '{print $1 * 1000 + $2 * 10}')
version=${version:-0}

card() { part "$1" "$2" "$programs/gpu_card" "${3:-$1}" "$kernels" "$version" ${small[@]+"${small[@]}"}; }

card describe 60
card copies 60
# Every test of every kernel, with its bounds, on the card; then a few of them with the instructions that a driver compiles itself.
part conformance 200 "$programs/gpu_kernels" "$kernels" "$version" ${RUN_FAKE:+cuda_rope}
# Small models of every architecture, and the one that ships, in every split: as the CPU computes them, graph = eager.
tape=$programs/models.tape
if [ ! -e "$tape" ] && [ -e "$tape.xz" ]; then xz -dc "$tape.xz" >"$work/models.tape" && tape=$work/models.tape; fi
if [ -e "$tape" ] && [ -x "$programs/gpu_replay" ]; then
  part models 200 "$programs/gpu_replay" "$tape" "$root" "$kernels" "$version" ${small[@]+"${small[@]}"}
else
  echo "[gpu] no $tape or no gpu_replay: whole models are left out" >&2
fi
card hand-overs 60
card uploads 60
card timings 200
[ -n "${RUN_FAKE:-}" ] || CUDA_FORCE_PTX_JIT=1 part compiled-by-driver 90 "$programs/gpu_kernels" "$kernels" "$version" cuda_linear_at_the_edges
# Races and barriers of blocks as the card has them: slow, so a few tests.
if [ -z "${RUN_FAKE:-}" ] && command -v compute-sanitizer >/dev/null; then
  for tool in racecheck synccheck memcheck; do
    part "$tool" 60 bash -c 'exec "$@" >&2' sanitizer compute-sanitizer --tool "$tool" --error-exitcode 9 "$programs/gpu_kernels" "$kernels" "$version" "${RUN_SANITIZE:-cuda_experts_tiles}"
  done
fi

# Ops through the harness that judges the CPU's kernels.
if [ -n "$node" ] && [ -z "${RUN_FAKE:-}" ] && [ -e "$root/node_modules/.bin/vitest" ] && [ -e "$root/build/tandem.node" ]; then
  TANDEM_CARD=1 TANDEM_CUDA_KERNELS=$kernels part ops 150 bash -c 'cd "$0" && exec "$1" node_modules/.bin/vitest run test/gpu/conformance.test.ts >&2' "$root" "$node"
fi
# Every kind of step, weight format and cache type in small whole models, and their passes as graphs.
if [ -n "$node" ] && [ -z "${RUN_FAKE:-}" ] && [ -e "$root/dist/cli.js" ] && [ -e "$root/build/tandem.node" ]; then
  TANDEM_CUDA_KERNELS=$kernels part kinds 150 "$node" "$root/dist/cli.js" doctor --gpu --json
fi
# Shapes of real models, a few layers of them, as the command line measures them.
if [ -n "$node" ] && [ -z "${RUN_FAKE:-}" ] && [ -e "$root/dist/cli.js" ] && [ -e "$root/build/tandem.node" ]; then
  for model in qwen3-30b-a3b deepseek-v2-lite; do
    file=$work/$model.gguf
    part "$model-synth" 60 "$node" "$root/dist/cli.js" synth "$model" "$file" --layers 6 --json || continue
    for rules in cpu one-gpu gpu-only; do
      part "$model-$rules" 60 "$node" "$root/dist/cli.js" bench model "$file" --rules "$rules" --prompt 512 --generate 64 --json
    done
    rm -f "$file"
  done
fi

echo
cat "$text"
echo "$out"
exit $failed
