#!/usr/bin/env bash
# Install msklabel and the locked versions: install.sh PYTHON [pip options for msklabel itself]
# TORCH_INDEX, if set, is the address of a package index to take torch from, such as one with CPU builds only.
#
# torch comes first, with its own dependencies (a CUDA build brings its CUDA libraries that way); then the whole locked
# set without dependency resolution, because monailabel's declared tree is far larger than what it imports.
set -euo pipefail
python=$1
shift
cd "$(dirname "$0")/.."
pip=("$python" -m pip install --quiet --disable-pip-version-check)
echo "installing 1 of 3: PyTorch (the largest part; minutes, depending on the network)"
"${pip[@]}" ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -c requirements.lock "$(grep '^torch==' requirements.lock)"
echo "installing 2 of 3: $(grep -c '==' requirements.lock) locked packages (a minute or two)"
"${pip[@]}" --no-deps -r requirements.lock
echo "installing 3 of 3: msklabel"
"${pip[@]}" --no-deps "$@" .
