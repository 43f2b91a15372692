#!/usr/bin/env bash
# An installed package does what it must where no checkout is in reach: installed.sh BIN, the directory of its programs.
set -euo pipefail
bin=$1
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
"$bin/seqssvae" --version
"$bin/seqssvae" --help >/dev/null
"$bin/python" - <<'PY'
import pathlib

import seqssvae_jax
import seqssvae_torch

import seqssvae
from seqssvae.datasets import peptides_path

here = pathlib.Path.cwd()
for package in (seqssvae, seqssvae_jax, seqssvae_torch):
    assert "site-packages" in package.__file__, f"{package.__file__} is not what was installed"
    assert (pathlib.Path(package.__file__).parent / "py.typed").exists(), f"{package.__name__} has no py.typed"
rows = peptides_path().read_text().splitlines(keepends=True)
pathlib.Path("rows.tsv").write_text("".join([row for row in rows if len(row) < 40][::40]))
PY
"$bin/seqssvae" fit --quiet --recipe ssvae --backend torch --data.train rows.tsv --output run --training.max_steps 2 \
  --model.encoder.hidden_size 8 --model.decoder.hidden_size 8
"$bin/seqssvae" predict run --data rows.tsv --output labels.tsv
test "$(wc -l <labels.tsv)" = $(($(wc -l <rows.tsv) + 1)) # and a line with the names of the columns
