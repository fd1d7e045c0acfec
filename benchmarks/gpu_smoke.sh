#!/usr/bin/env bash
# Does everything that trains, transcribes and generates work on this device? At most six minutes; in miniature on a processor:
#   benchmarks/gpu_smoke.sh OUT                       # a GPU, bf16
#   ACCELERATOR=cpu benchmarks/gpu_smoke.sh OUT       # the same steps, fewer of them
# It needs no data but the clips in data/samples/demo. Figures go to OUT/figures.txt.
set -euo pipefail
out=${1:?usage: gpu_smoke.sh OUT}
accelerator=${ACCELERATOR:-gpu}
if [ "$accelerator" = cpu ]; then epochs=1 steps=4 rows=12 crops=4 batch=2 precision=32-true
else epochs=3 steps=-1 rows=300 crops=1600 batch=32 precision=bf16-mixed; fi
mkdir -p "$out"
say() { echo "$*" | tee -a "$out/figures.txt"; }
timed() { local name=$1 start; start=$(date +%s.%N); shift; "$@" > "$out/$name.log" 2>&1 || { tail -5 "$out/$name.log"; exit 1; }
          say "$name: $(awk -v a="$start" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }') s"; }
wavasr() { python -m wavasr "$@"; }
python - "$accelerator" <<'P' | tee -a "$out/figures.txt"
import sys, torch
name = torch.cuda.get_device_name() if sys.argv[1] != "cpu" and torch.cuda.is_available() else "processor"
print(f"device: {name}; torch {torch.__version__}")
P
common=(--trainer.accelerator "$accelerator" --trainer.devices 1 --trainer.precision "$precision" --data.workers 2 --trainer.log_every_n_steps 1)
for part in train dev; do
  python -c "import sys; from wavasr.corpora.manifest import *; n = int(sys.argv[3])
write_manifest(sys.argv[2], read_manifest(sys.argv[1])[:n])" "data/samples/demo/$part.jsonl" "$out/words/$part.jsonl" "$rows"
  timed "align-$part" wavasr align --manifest "$out/words/$part.jsonl" --output "$out/data/$part.jsonl"
done
recipe=(--config demo.yaml --data.root "$out/data" --run_dir "$out/run" "${common[@]}")
timed train wavasr fit "${recipe[@]}" --trainer.max_epochs "$epochs" --trainer.max_steps "$steps"
timed resume wavasr fit --run_dir "$out/run" --resume --trainer.max_epochs $((epochs + 1)) --trainer.max_steps -1 "${common[@]}"
timed whole-network wavasr fit "${recipe[@]}" --run_dir "$out/all" --optim.front_end_frozen_epochs 0 --optim.front_end_copies 0 \
  --auxiliary.weight 0.1 --trainer.max_epochs 1 --trainer.max_steps "$steps"
timed evaluate wavasr evaluate --model "$out/run/model.wavasr" --manifest "$out/words/dev.jsonl"
timed transcribe wavasr transcribe data/samples/plain-sentence.flac --model "$out/run/model.wavasr"
timed voice wavasr fit --config voice.yaml --data.root data --data.train "[samples/demo]" --run_dir "$out/voice" "${common[@]}" \
  --data.epoch_crops "$crops" --data.batch "$batch" --data.dev_crops 4 --trainer.max_epochs "$epochs"
timed generate wavasr generate --model "$out/voice/model.wavasr" --like data/samples/plain-sentence.flac -o "$out/voice.wav"
say "dev: $(grep '^dev:' "$out/resume.log" || true)"
say "audio seconds a second: $(awk -F, 'NR==1{for(i=1;i<=NF;i++)if($i=="audio_s_per_s")c=i} NR>1&&$c!=""{v=$c} END{print v}' "$out/all/metrics.csv")"
say "voice: $(tail -1 "$out/voice/metrics.csv")"
say "said: $(cat "$out/transcribe.log" | tail -1)"
say "all passed"
