#!/usr/bin/env bash
# All that is to be measured on one GPU, in one call of at most LIMIT seconds (600): JSON lines and a table in OUT.
#
#   OUT=measured bash benchmarks/gpu.sh
#   SMOKE=1 bash benchmarks/gpu.sh     # the same in tiny sizes, on any machine
#
# What the time does not suffice for is named at the end. PYTHON: the interpreter (.venv/bin/python, else python3).
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
OUT=${OUT:-gpu_results}
LIMIT=${LIMIT:-600}
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
mkdir -p "$OUT" || exit 1
rows=$OUT/rows.jsonl
table=$OUT/table.md
: > "$rows"; : > "$table"
missing=0

celeba=(--config=configs/dbae_celeba.py --batch=256 --repeats=10)
ffhq=(--config=configs/dbae_ffhq.py --batch=128 --repeats=10)
sampled=(--config.sampling.steps=10)
forms=(--config=configs/dbae_celeba.py --batch=128)
if [ -n "${SMOKE:-}" ]; then
  tiny=(--config=configs/dbae_digits.py --batch=4 --repeats=1 --config.data.image_size=16)
  tiny+=(--config.method.unet.width=8 "--config.method.unet.mult=(1,2)" --config.method.encoder.width=8)
  tiny+=("--config.method.encoder.mult=(1,2)" --config.method.generator.width=2)
  celeba=("${tiny[@]}"); ffhq=("${tiny[@]}"); forms=("${tiny[@]}"); sampled=(--config.sampling.steps=2)
fi

# run NAME MODULE ARGUMENTS...: within what is left of the time
run() {
  local name=$1 left=$((LIMIT - SECONDS)); shift
  if [ "$left" -lt 20 ]; then echo "not measured: $name (no time left)" | tee -a "$table"; missing=1; return; fi
  printf '\n%s\n\n' "$name" | tee -a "$table"
  timeout "$left" "$PYTHON" -m "$@" --json="$rows" 2> "$OUT/errors.txt" | grep '^|' | tee -a "$table"
  local status=${PIPESTATUS[0]}
  if [ "$status" -ne 0 ]; then
    { echo "failed ($status): $name"; tail -n 3 "$OUT/errors.txt"; } | tee -a "$table"; missing=1
  fi
}

bf16=(--config.method.dtype=bfloat16) f32=(--config.method.dtype=float32)
run "CelebA64, training, bfloat16" benchmarks.throughput "${celeba[@]}" "${bf16[@]}"
run "the same, attention by XLA" benchmarks.throughput "${celeba[@]}" "${bf16[@]}" --config.runtime.fused_attention=False
run "Each form against the others; every convolution in bfloat16" benchmarks.forms "${forms[@]}"
run "FFHQ128, training, bfloat16" benchmarks.throughput "${ffhq[@]}" "${bf16[@]}"
run "CelebA64, sampling, bfloat16" benchmarks.throughput --what=sample "${celeba[@]}" "${bf16[@]}" "${sampled[@]}"
run "FFHQ128, sampling, bfloat16" benchmarks.throughput --what=sample "${ffhq[@]}" "${bf16[@]}" "${sampled[@]}"
run "CelebA64, training, float32 (TF32)" benchmarks.throughput "${celeba[@]}" "${f32[@]}"
run "CelebA64, sampling, float32 (TF32)" benchmarks.throughput --what=sample "${celeba[@]}" "${f32[@]}" "${sampled[@]}"
run "FFHQ128, training, float32 (TF32)" benchmarks.throughput "${ffhq[@]}" "${f32[@]}"
run "FFHQ128, sampling, float32 (TF32)" benchmarks.throughput --what=sample "${ffhq[@]}" "${f32[@]}" "${sampled[@]}"
printf '\n%d seconds; rows in %s, tables in %s\n' "$SECONDS" "$rows" "$table"
exit $missing
