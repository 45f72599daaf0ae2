#!/usr/bin/env bash
# The tests in an environment of its own: with the lowest versions that pyproject.toml allows, with the newest, or with
# what `build` installs, pytest and hypothesis alone.
#
#   tests/environment.sh lowest|newest|bare [PYTEST ARGUMENTS]
#
# It is made anew under build/environments/KIND (several gigabytes with torch), by uv, which is installed where it is
# missing. KIND.txt beside it lists what was resolved. Without arguments it runs the parts of the suite where libraries
# meet; `tests` runs all of it. PYTHON names another Python, ENVIRONMENTS another folder.
set -euo pipefail
cd "$(dirname "$0")/.."
kind="${1:?expected lowest, newest or bare}"
shift
folder="${ENVIRONMENTS:-build/environments}"
environment="$folder/$kind"
mkdir -p "$folder"

if command -v uv >/dev/null; then
    uv=uv
else
    [ -x "$folder/uv/bin/uv" ] || "${PYTHON:-python3}" -m venv "$folder/uv"
    "$folder/uv/bin/python" -m pip install --quiet --disable-pip-version-check uv
    uv="$folder/uv/bin/uv"
fi

case "$kind" in
    lowest) what=(--resolution lowest-direct --editable '.[test]') ;;
    newest) what=(--resolution highest --editable '.[test]') ;;
    bare) what=(--editable '.[build]' pytest hypothesis) ;;
    *) echo "error: '$kind': expected lowest, newest or bare" >&2 && exit 2 ;;
esac

"$uv" venv --quiet --clear --python "${PYTHON:-python3}" "$environment"
"$uv" pip install --quiet --python "$environment/bin/python" "${what[@]}"
"$uv" pip freeze --quiet --exclude-editable --python "$environment/bin/python" | tee "$folder/$kind.txt"

if [ $# = 0 ]; then
    set -- tests/test_package.py tests/test_recipe.py tests/test_reference.py tests/data tests/models \
        tests/calibration/quantizers tests/calibration/rewrites tests/export tests/graph tests/engines tests/measure \
        tests/report tests/pipeline/test_builds.py
    if [ "$kind" = bare ]; then # these compare with scikit-learn, SciPy, jsonschema or MLflow
        for file in measure/tasks/test_{classes,dense,embedding,multilabel,probes} report/comparison/test_{judge,statistics} \
            report/test_schema report/timeline/test_runs; do
            set -- "$@" "--ignore=tests/$file.py"
        done
    fi
fi
exec "$environment/bin/python" -m pytest -q "$@"
