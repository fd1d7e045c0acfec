#!/usr/bin/env bash
# What `make demo` shows: the shipped model on the sample clips, then the same model as it learns new voices and words.
set -euo pipefail
cd "$(dirname "$0")/.."
said=data/samples/demo data=runs/demo-data run=runs/demo

echo "The shipped model, which learnt from people, on clips that two speech synthesisers spoke; the right texts are in"
echo "data/samples/samples.jsonl:"
clips=(data/samples/*.flac data/samples/*.mp3 data/samples/*.ogg data/samples/*.opus data/samples/*.wav)
wavasr transcribe "${clips[@]}" | paste <(printf '  %-40s\n' "${clips[@]}") -

echo
echo "A sentence that wavasr speaks, and what it recognises of it:"
wavasr speak "The old man walked slowly down to the river." -o runs/demo-speech.wav
wavasr transcribe runs/demo-speech.wav

echo
echo "Training it on 40 synthetic voices that say digits and commands (about three minutes on two cores):"
rm -rf $run $data
for part in train dev; do
    wavasr align --manifest $said/$part.jsonl --output $data/$part.jsonl  # words become phones and their times
done
wavasr fit --config demo.yaml
wavasr lm build $said/train.jsonl --order 2 -o $data/words.arpa

echo
echo "Six voices that are not in its training data:"
wavasr evaluate --model $run/model.wavasr --manifest $said/test.jsonl --lm $data/words.arpa --report $run/test
clip=$(find $said -path '*-m6-*' -name 03.opus)
echo "In  it recognises: $(wavasr transcribe "$clip" --model $run/model.wavasr --lm $data/words.arpa)"
echo
echo "Its report, to open in a browser: $PWD/$run/test/report.html"
