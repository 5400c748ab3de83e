#!/usr/bin/env bash
# Everything there is to run on an NVIDIA card, in one go: bench/gpu/run.sh [OUT.json]
#
# Part after part, each with a time of its own: what fails or hangs is told, what it found until then is kept, and the rest goes on. After
# every part all that is known so far lies in OUT.json (default build/gpu.json) and OUT.txt, the table. Results that are kept go to
# bench/results/, with the card's name.
#
#   RUN_PREBUILT=DIR   takes the programs and the kernels from there and builds nothing (bench/gpu/prebuild.sh DIR makes it)
#   RUN_PARTS="a b"    these parts alone
#   RUN_FAKE=1         over the fake driver (TANDEM_CUDA_LIBRARY, or one that is built), with little sizes: tries the script where there is
#                      no card; its times mean nothing. RUN_TAPE=TEXT: models whose name has it, '' for all (default: the first)
#   RUN_SECONDS=570    all is over by then: a part gets what is left, and none begins with less than ten seconds
#
# Without Node the parts of programs in C++ run, and those of the command line are left out. Exit code: 0 all passed, 1 a part failed,
# 3 there is no card here.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
out=${1:-$root/build/gpu.json}
text=${out%.json}.txt
work=$(mktemp -d)
running=
trap '[ -z "$running" ] || kill -KILL -- "-$running" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 143' TERM INT
limit=${RUN_SECONDS:-570}
parts=${RUN_PARTS:-}
names=()
failed=0
[ -n "${RUN_PREBUILT:-}" ] && RUN_PREBUILT=$(cd "$RUN_PREBUILT" && pwd)
mkdir -p "$(dirname "$out")"
command -v make >/dev/null || export CMAKE_GENERATOR=Ninja
commit=$(cat "${RUN_PREBUILT:-/nowhere}/commit" 2>/dev/null || git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown)

# The command line: the checkout's, or the one that was packed.
node=$(command -v node || true)
app=$root
if [ -e "${RUN_PREBUILT:-/nowhere}/app.tar.xz" ]; then
  if tar -xf "$RUN_PREBUILT/app.tar.xz" -C "$work" 2>/dev/null || python3 -m tarfile -e "$RUN_PREBUILT/app.tar.xz" "$work" 2>/dev/null; then
    app=$work/app
    [ -n "$node" ] || node=$app/node
  else
    echo "[gpu] app.tar.xz cannot be unpacked here (xz or python3)" >&2
  fi
fi

# What is known so far.
write() {
  {
    printf '{"date": "%s", "commit": "%s", "seconds": %s, "parts": {' "$(date -u +%FT%TZ)" "$commit" "$SECONDS"
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
  for name in ${names[@]+"${names[@]}"}; do
    printf '== %s: %s, %s s\n' "$name" "$(cat "$work/$name.word")" "$(cat "$work/$name.seconds")"
    grep -v '^ok ' "$work/$name.log" | tail -n 600
  done >"$text"
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
  local name=$1 seconds=$2 start=$SECONDS left=$((limit - SECONDS)) code word
  shift 2
  if [ -n "$parts" ] && [[ " $parts " != *" $name "* ]]; then return 0; fi
  if [ "$left" -lt 10 ]; then
    echo "[gpu] $name is left out: $SECONDS of $limit s have passed" >&2
    return 1
  fi
  [ "$seconds" -le "$left" ] || seconds=$left
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
  cmake -S "$root/bench/gpu" -B "$root/build/gpu" >/dev/null && cmake --build "$root/build/gpu" --parallel "${JOBS:-$(nproc)}" --target gpu_card gpu_kernels ${RUN_FAKE:+fake_cuda} >&2
}
build_models() {
  cmake -S "$root/native" -B "$root/build/gpu-models" -DTANDEM_TESTS=ON >/dev/null &&
    cmake --build "$root/build/gpu-models" --parallel "${JOBS:-$(nproc)}" --target gpu_replay >&2 && cp "$root/build/gpu-models/gpu_replay" "$root/build/gpu/" &&
    "$node" "$root/bench/gpu/record.mjs" "$root/build/gpu/models.tape"
}
build_kernels() {
  if [ -n "$node" ]; then "$node" "$root/scripts/build-cuda.mjs" && [ -e "$kernels" ]; else
    echo "[gpu] no Node: the kernels are compiled for this card alone" >&2
    PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin
    nvcc -std=c++20 -O3 -fatbin -arch=native -I "$root/native" -o "$kernels" "$root/native/cuda/kernels/kernels.cu" &&
      printf '{"cuda":"%s"}\n' "$(nvcc --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')" >"$root/build/tandem-cuda.json"
  fi
}
export -f build build_kernels build_models
export root node kernels

# Fails where a file that $kernels is made of is younger.
kernels_are_new() { [ -e "$kernels" ] && [ -z "$(find "$root/native/cuda/kernels" "$root/native/quant" -newer "$kernels" -print -quit)" ]; }

# Parts that all need are no parts to choose from.
all() {
  local parts=
  part "$@"
}

[ -n "${RUN_PREBUILT:-}" ] && [ -z "${RUN_FAKE:-}" -o -n "${TANDEM_CUDA_LIBRARY:-}" ] || all build 500 bash -c build || { cat "$text"; exit 1; }
if [ -n "${RUN_FAKE:-}" ]; then
  small=(small)
  export TANDEM_CUDA_LIBRARY=${TANDEM_CUDA_LIBRARY:-$root/build/gpu/libfake_cuda.so} TANDEM_FAKE_CUDA='gpus=2;memory=4000000000' TANDEM_CUDA_CHECK=0
  kernels=$work/kernels
  : >"$kernels"
elif [ -z "${RUN_PREBUILT:-}" ] && ! kernels_are_new; then
  all kernels-build 300 bash -c build_kernels || { cat "$text"; exit 1; }
fi
version=$(sed -n 's/.*"cuda": *"\([0-9]*\)\.\([0-9]*\)".*/\1 \2/p' "$(dirname "$kernels")/tandem-cuda.json" 2>/dev/null | awk '{print $1 * 1000 + $2 * 10}')
version=${version:-0}

card() { part "$1" "$2" "$programs/gpu_card" "${3:-$1}" "$kernels" "$version" ${small[@]+"${small[@]}"}; }

# Where the driver's library lies in no folder that the loader knows.
if [ -z "${TANDEM_CUDA_LIBRARY:-}" ]; then
  for folder in '' /usr/local/nvidia/lib64 /usr/lib/wsl/lib /usr/lib64; do
    library=${folder:+$folder/}libcuda.so.1
    [ -z "$folder" ] || [ -e "$library" ] || continue
    TANDEM_CUDA_LIBRARY=$library timeout 30 "$programs/gpu_card" describe "$kernels" "$version" >/dev/null 2>&1
    [ $? = 3 ] && continue
    export TANDEM_CUDA_LIBRARY=$library
    break
  done
fi
all describe 60 "$programs/gpu_card" describe "$kernels" "$version"
if [ "$(cat "$work/describe.code" 2>/dev/null)" = 3 ]; then
  exit 3
fi
card copies 40
# Every test of every kernel, with its bounds, on the card.
part conformance 120 "$programs/gpu_kernels" "$kernels" "$version" ${RUN_FAKE:+cuda_rope}
card timings 150
# Small models of every architecture, and the one that ships, in every split: as the CPU computes them, graph = eager.
if [ -z "${RUN_PREBUILT:-}" ] && [ -n "$node" ] && [ -e "$root/build/tandem.node" ]; then part build-models 300 bash -c build_models; fi
tape=$programs/models.tape
if [ ! -e "$tape" ] && [ -e "$tape.xz" ]; then
  xz -dc "$tape.xz" >"$work/models.tape" 2>/dev/null || python3 -c 'import lzma, sys; sys.stdout.buffer.write(lzma.open(sys.argv[1]).read())' "$tape.xz" >"$work/models.tape"
  tape=$work/models.tape
fi
if [ -e "$tape" ] && [ -x "$programs/gpu_replay" ]; then
  part models 120 "$programs/gpu_replay" "$tape" "$root" "$kernels" "$version" ${small[@]+"${small[@]}" "only=${RUN_TAPE-tiny f32}"}
else
  echo "[gpu] no tape or no gpu_replay: whole models are left out (they need Node and npm run build, or prebuild.sh)" >&2
fi
card hand-overs 40
card uploads 40

# Every kind of step, weight format and cache type in small whole models, and their passes as graphs; then shapes of real models, a few
# layers of them, as the command line measures them.
cli() { TANDEM_CUDA_KERNELS=$kernels part "$1" "$2" "$node" "$app/dist/cli.js" "${@:3}"; }
if [ -n "$node" ] && [ -e "$app/dist/cli.js" ] && [ -e "$app/build/tandem.node" ]; then
  if [ -n "${RUN_FAKE:-}" ]; then
    cli jug-gpu-only 60 bench model "$root/models/jug/jug-Q8_0.gguf" --rules gpu-only --prompt 4 --generate 2 --rounds 1 --context 64 --no-ceiling --json
  else
    cli kinds 90 doctor --gpu --json
    for model in qwen3-30b-a3b deepseek-v2-lite; do
      file=$work/$model.gguf
      cli "$model-synth" 60 synth "$model" "$file" --layers 6 --json || { rm -f "$file"; continue; }
      for rules in gpu-only one-gpu cpu; do
        cli "$model-$rules" 45 bench model "$file" --rules "$rules" --prompt 512 --generate 64 --json
      done
      rm -f "$file"
    done
  fi
else
  echo "[gpu] no Node or no command line: shapes of real models are left out (npm run build, or prebuild.sh with WITH_NODE=1)" >&2
fi
# Ops through the harness that judges the CPU's kernels.
if [ -n "$node" ] && [ -z "${RUN_FAKE:-}" ] && [ -e "$root/node_modules/.bin/vitest" ] && [ -e "$root/build/tandem.node" ]; then
  TANDEM_CARD=1 TANDEM_CUDA_KERNELS=$kernels part ops 100 bash -c 'cd "$0" && exec "$1" node_modules/.bin/vitest run test/gpu/conformance.test.ts >&2' "$root" "$node"
fi
if [ -z "${RUN_FAKE:-}" ]; then
  # Races and barriers of blocks as the card has them: slow, so a few tests.
  sanitizer=$(PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin command -v compute-sanitizer)
  for tool in ${sanitizer:+racecheck synccheck memcheck}; do
    TANDEM_BENCH_ALONE=1 part "$tool" 45 bash -c 'exec "$@" >&2' sanitizer "$sanitizer" --tool "$tool" --error-exitcode 9 "$programs/gpu_kernels" "$kernels" "$version" "${RUN_SANITIZE:-tiles_at_the_edges,cuda_linear_at_the_edges,cuda_mla_in_parts,cuda_attention_on_tiles}"
  done
  # The instructions that a driver compiles itself, all kernels at once, as on a card that is younger than the compiler.
  CUDA_FORCE_PTX_JIT=1 part compiled-by-driver 120 "$programs/gpu_kernels" "$kernels" "$version" cuda_linear_at_the_edges
fi

# The whole table is in a file; here what is wrong, and what is far from its floor.
echo
for name in "${names[@]}"; do
  printf '== %s: %s, %s s\n' "$name" "$(cat "$work/$name.word")" "$(cat "$work/$name.seconds")"
  grep -E 'FAILED|failed|pieces passed' "$work/$name.log" | head -n 12
  grep -E '  +[0-4]?[0-9] % of ' "$work/$name.log" | head -n 40
done
echo "$out"
exit $failed
