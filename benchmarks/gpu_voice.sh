#!/usr/bin/env bash
# A larger voice on a GPU: 64 residual and 128 skip channels in 20 layers, in at most 12 minutes.
#
#   bash benchmarks/gpu_voice.sh DATA RUN_DIR            DATA: the folder of data/README.md, or one with kathleen/all.jsonl
#   QUICK=1 bash benchmarks/gpu_voice.sh DATA RUN_DIR    two small epochs on the CPU: tries the script
#
# Then: wavasr evaluate --model RUN_DIR/model.wavasr --manifest MANIFEST
set -euo pipefail
data=$1 run=$2
cd "$(dirname "$0")/.."
options=(--generator.channels 64 --generator.skip_channels 128)
if [ -n "${QUICK:-}" ]; then
    options+=(--trainer.accelerator cpu --trainer.max_epochs 2 --data.epoch_crops 4 --data.dev_crops 2)
else
    # Batches hide the latency of small products; processes prepare crops meanwhile.
    options+=(--trainer.accelerator gpu --trainer.devices 1 --trainer.max_time 00:00:11:00 --trainer.max_epochs 60
        --data.batch 32 --data.epoch_crops 9600 --data.workers 12 --optim.average_decay 0.999)
fi
python -m wavasr fit --config voice.yaml --data.root "$data" --run_dir "$run" "${options[@]}"
