#!/usr/bin/env bash
# The figures of docs/model-card.md, for a model: one row of Markdown for each set.
#
#   bash benchmarks/figures.sh WORK                          all sets, from ../shared/data (or $WAVASR_DATA); about 12 minutes of a core
#   bash benchmarks/figures.sh WORK dev thorough             some: test dev thorough an4 timit samples robustness alignment
#   MODEL=new.wavasr bash benchmarks/figures.sh WORK dev     another model than the shipped one
#
# WORK keeps manifests, the copies of `robustness` and a report of each set (for `wavasr evaluate --compare`). `test` and `an4` have test sets: run
# them once for a model, after everything was chosen on `dev`.
set -euo pipefail
[ $# -gt 0 ] || { sed -n '2,9s/^# \?//p' "$0" >&2; exit 2; }
work=$(realpath -m "$1") && shift
data=$(realpath "${WAVASR_DATA:-$(dirname "$0")/../../shared/data}")
model=${MODEL:-default}
case $model in */* | *.wavasr) model=$(realpath "$model") ;; esac
cd "$(dirname "$0")/.."
mkdir -p "$work"

# row NAME MANIFEST [OPTION...]: error rates with intervals, and how far confidences are from the share that is right
row() {
    local name=$1 manifest=$2 said
    shift 2
    said=$(python -m wavasr evaluate --model "$model" --manifest "$manifest" --report "$work/reports/${name// /-}" "$@")
    sed -nE "1s/^WER ([0-9.]+ %) \(95 % interval ([0-9.]+) . ([0-9.]+)\).*/| $name | **\1** (\2 to \3)/p
        2s/^CER ([0-9.]+ %).*/ | \1/p
        s/^confidences: expected calibration error ([0-9.]+ %).*/ | \1 |/p" <<<"$said" | tr -d '\n'
    echo
}

head_of() { printf '\n| %s | WER (95 %% interval) | characters | calibration error |\n|---|---|---|---|\n' "$1"; }

figures_test() { row "LibriSpeech dev-clean, 10 of 40 speakers" "$data/librispeech-devclean/test.jsonl"; }

figures_dev() {
    row "LibriSpeech, 4 dev speakers" "$data/librispeech/dev.jsonl"
    row "speechocean762, 12 dev speakers" "$data/speechocean762/dev.jsonl"
}

figures_thorough() {
    row "LibriSpeech, thorough" "$data/librispeech/dev.jsonl" --thorough
    row "speechocean762, thorough" "$data/speechocean762/dev.jsonl" --thorough
}

figures_an4() {
    python -m wavasr lm build "$data/an4/train.jsonl" -o "$work/an4.arpa" >"$work/an4.log"
    row "AN4 test" "$data/an4/test.jsonl"
    row "AN4 test, --lm an4.arpa" "$data/an4/test.jsonl" --lm "$work/an4.arpa"
}

figures_timit() {
    [ -f "$work/timit/test.jsonl" ] ||
        python -m wavasr prepare timit "$data/timit-sample" --option labels=words --output "$work/timit" >"$work/timit.log"
    row "TIMIT sample, 4 test speakers" "$work/timit/test.jsonl"
}

figures_samples() { row "sample clips" data/samples/samples.jsonl; }

figures_robustness() {
    python benchmarks/robustness.py "$data/librispeech/dev.jsonl" --output "$work/copies" --every 4 --data "$data" --model "$model"
}

figures_alignment() { python benchmarks/alignment.py "$data/timit-sample" --model "$model" --part TEST; }

[ $# -gt 0 ] || set -- test dev thorough an4 timit samples robustness alignment
for set in "$@"; do
    case $set in
        robustness | alignment) printf '\n%s\n' "$set" ;;
        test | dev | thorough | an4 | timit | samples) head_of "$set" ;;
        *) echo "no set $set; one of: test dev thorough an4 timit samples robustness alignment" >&2 && exit 2 ;;
    esac
    "figures_$set"
done
