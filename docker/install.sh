#!/usr/bin/env bash
# Install the locked versions, then msklabel: install.sh PYTHON [--packages | pip options for msklabel itself]
# With --packages it ends before msklabel, and needs requirements.lock only: a container's image keeps that as a layer.
# TORCH_INDEX, if set, is the address of a package index to take torch from, such as one with CPU builds only.
#
# torch comes first, with its own dependencies (a CUDA build brings its CUDA libraries that way); then the whole locked
# set without dependency resolution, because monailabel's declared tree is far larger than what it imports.
set -euo pipefail
trap 'echo "msklabel is not installed; without internet access, see make wheels in README.md" >&2' ERR
python=$(command -v "$1")  # a path: uv takes a mere name for that of a virtual environment
shift
cd "$(dirname "$0")/.."
pip=("$python" -m pip install --quiet --disable-pip-version-check)
index=${PIP_INDEX_URL:-$("$python" -m pip config get global.index-url 2>/dev/null || true)}
echo "installing 1 of 3: PyTorch (the largest part; minutes, depending on the network)"
"${pip[@]}" ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -c requirements.lock "$(grep '^torch==' requirements.lock)"
echo "installing 2 of 3: $(grep -c '==' requirements.lock) locked packages (seconds to a minute)"
# uv takes a tenth of pip's time. Where it cannot reach what pip can, pip does it; monailabel is
# pip's in any case, because uv leaves the clients that come with it (3D Slicer's, OHIF) where nobody finds them.
# Modules are compiled once, here: some places forbid Python to keep what it compiles as it goes, and every start pays.
export UV_COMPILE_BYTECODE=${UV_COMPILE_BYTECODE:-1}
"${pip[@]}" --no-deps -c requirements.lock uv monailabel &&
    "$python" -m uv pip install --quiet --python "$python" ${index:+--default-index "$index"} \
        ${PIP_NO_INDEX:+--no-index} ${PIP_FIND_LINKS:+--find-links "$PIP_FIND_LINKS"} --no-deps -r requirements.lock ||
    "${pip[@]}" --no-deps -r requirements.lock
[ "${1:-}" != --packages ] || exit 0
echo "installing 3 of 3: msklabel"
"${pip[@]}" --no-deps "$@" .
