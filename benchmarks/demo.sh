#!/usr/bin/env bash
# What `make demo` shows: the default model on the sample clips, then the same model as it learns new voices and words.
set -euo pipefail
cd "$(dirname "$0")/.."

echo "The default model, which learnt from people, on clips that two speech synthesisers spoke; it is weak on them, and
should be seen beside data/samples/samples.jsonl, the right texts:"
clips=(data/samples/*.flac data/samples/*.mp3 data/samples/*.ogg data/samples/*.opus data/samples/*.wav)
wavasr transcribe "${clips[@]}" | paste <(printf '  %-40s\n' "${clips[@]}") -

echo
echo "Training the shipped model an4 on 40 synthetic voices that say digits and commands (about three minutes):"
rm -rf runs/demo
wavasr fit --config demo.yaml

echo
clip=$(find data/samples/demo -path '*-m6-*' -name 03.opus)
echo "It hears in $clip, by a voice it has never heard:"
wavasr transcribe "$clip" --model runs/demo/model.wavasr
echo
echo "Its report, to open in a browser: $PWD/runs/demo/test/report.html"
