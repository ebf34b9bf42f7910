# Sourced by each script. `environment PACKAGE==VERSION …` makes a virtual environment in a temporary
# folder, which goes when the script ends; its `python` is then the first.
set -euo pipefail
unset PYTHONPATH
export JAX_PLATFORMS=cpu

environment() {
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  "${PYTHON:-python3}" -m venv "$folder/venv"
  "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
  PATH="$folder/venv/bin:$PATH"
  cd "$folder"
}
