#!/usr/bin/env bash
# Builds the sdist and the wheel, and tries the wheel in a new environment of each Python named, one after the other (2 GB each):
#   tests/scripts/smoke.sh python3.11 python3.12 python3.13
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"  # not in the repository: what is imported is what was installed

python3 -m venv build
build/bin/python -m pip install --quiet build
build/bin/python -m build --outdir dist "$root" >build.log || { cat build.log; exit 1; }

tar tzf dist/*.tar.gz | cut -d/ -f2- >sdist.txt
python3 -m zipfile -l dist/*.whl | awk 'NR > 1 { print $1 }' >wheel.txt
for list in sdist.txt wheel.txt; do
  for file in LICENSE tf_lottery/py.typed tf_lottery/report/page.html; do
    grep -qE "(^|/)$file$" $list || { echo "$list: no $file"; exit 1; }
  done
  if grep -E '^(tests|docs|benchmarks|examples|saved_models|shared|data)/' $list; then exit 1; fi
done

for python in "$@"; do
  rm -rf venv run
  "$python" -m venv venv
  venv/bin/python -m pip install --quiet dist/*.whl
  mkdir run
  (cd run && TF_CPP_MIN_LOG_LEVEL=3 ../venv/bin/python "$root/tests/scripts/smoke.py")
done
