#!/usr/bin/env bash
# What is to be measured on one GPU, the most wanted first, within LIMIT seconds (600): JSON lines and a table in OUT.
#
#   OUT=measured bash benchmarks/gpu.sh
#   SMOKE=1 bash benchmarks/gpu.sh     # the same in tiny sizes, on any machine
#
# Most of the time goes into compiling: a training step of CelebA64 took 143 s on 16 cores beside an H200, and 60 s where
# XLA's choices of kernels were cached. Rows that OUT has are not measured again, so that the same command goes on with
# what the time did not suffice for; that is named at the end. PYTHON: the interpreter (.venv/bin/python, else python3).
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
OUT=${OUT:-gpu_results}
LIMIT=${LIMIT:-600}
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
mkdir -p "$OUT" || exit 1
rows=$OUT/rows.jsonl
table=$OUT/table.md
finished=$OUT/finished.txt
touch "$rows" "$table" "$finished"
missing=0

celeba=(--config=configs/dbae_celeba.py --batch=256 --repeats=10)
ffhq=(--config=configs/dbae_ffhq.py --batch=128 --repeats=10)
sampled=(--what=sample --config.sampling.sampler=euler --config.sampling.grid=karras --config.sampling.eta=0)
sampled+=(--config.sampling.steps=10)
forms=(--config=configs/dbae_celeba.py --batch=128)
if [ -n "${SMOKE:-}" ]; then
  tiny=(--config=configs/dbae_digits.py --batch=4 --repeats=1 --config.data.image_size=16)
  tiny+=(--config.method.unet.width=8 "--config.method.unet.mult=(1,2)" --config.method.encoder.width=8)
  tiny+=("--config.method.encoder.mult=(1,2)" --config.method.generator.width=2)
  celeba=("${tiny[@]}"); ffhq=("${tiny[@]}"); forms=("${tiny[@]}")
  sampled=(--what=sample --config.sampling.sampler=euler --config.sampling.steps=2)
fi

# run NAME MODULE ARGUMENTS...: within what is left of the time
run() {
  local name=$1 left=$((LIMIT - SECONDS)); shift
  if grep -qxF "$name" "$finished"; then return; fi
  if [ "$left" -lt 20 ]; then echo "not measured: $name (no time left)"; missing=1; return; fi
  printf '\n%s\n\n' "$name" > "$OUT/part.md"
  rm -f "$OUT/part.jsonl"
  timeout "$left" "$PYTHON" -m "$@" --json="$OUT/part.jsonl" 2> "$OUT/errors.txt" | grep '^|' >> "$OUT/part.md"
  local status=${PIPESTATUS[0]}
  if [ "$status" -eq 0 ]; then
    tee -a "$table" < "$OUT/part.md"; cat "$OUT/part.jsonl" >> "$rows"; echo "$name" >> "$finished"
  elif [ "$status" -eq 124 ]; then
    echo "not measured: $name (its time was over)"; missing=1
  else
    echo "failed ($status): $name"; tail -n 3 "$OUT/errors.txt"; missing=1
  fi
}

bf16=(--config.method.dtype=bfloat16) f32=(--config.method.dtype=float32)
outer=("${bf16[@]}" --config.method.outer_dtype=bfloat16)
run "CelebA64, training, bfloat16" benchmarks.throughput "${celeba[@]}" "${bf16[@]}"
run "CelebA64, training, encoder and generator in bfloat16 too" benchmarks.throughput "${celeba[@]}" "${outer[@]}"
run "CelebA64, sampling, bfloat16" benchmarks.throughput "${celeba[@]}" "${sampled[@]}" "${bf16[@]}"
run "FFHQ128, sampling, bfloat16" benchmarks.throughput "${ffhq[@]}" "${sampled[@]}" "${bf16[@]}"
run "FFHQ128, training, encoder and generator in bfloat16 too" benchmarks.throughput "${ffhq[@]}" "${outer[@]}"
run "Each form against the others; every convolution in bfloat16" benchmarks.forms "${forms[@]}"
run "CelebA64, attention by XLA" benchmarks.throughput "${celeba[@]}" "${bf16[@]}" --config.runtime.fused_attention=False
run "CelebA64, training, float32 (TF32)" benchmarks.throughput "${celeba[@]}" "${f32[@]}"
run "FFHQ128, training, bfloat16" benchmarks.throughput "${ffhq[@]}" "${bf16[@]}"
run "CelebA64, sampling, float32 (TF32)" benchmarks.throughput "${celeba[@]}" "${sampled[@]}" "${f32[@]}"
run "FFHQ128, training, float32 (TF32)" benchmarks.throughput "${ffhq[@]}" "${f32[@]}"
run "FFHQ128, sampling, float32 (TF32)" benchmarks.throughput "${ffhq[@]}" "${sampled[@]}" "${f32[@]}"
printf '\n%d seconds; rows in %s, tables in %s\n' "$SECONDS" "$rows" "$table"
exit $missing
