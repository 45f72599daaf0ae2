#!/usr/bin/env bash
# The tests in an environment of its own: with the lowest versions that pyproject.toml allows, with the newest, or with
# what `build` installs, pytest and hypothesis alone.
#
#   tests/environment.sh lowest|newest|bare [PYTEST ARGUMENTS]
#
# It is made by uv, which is installed where it is missing, under build/environments/KIND (several gigabytes with
# torch), and anew when pyproject.toml or the Python changes. KIND.txt beside it lists what was resolved.
#
# Without arguments it runs the parts of the suite where libraries meet, one after the other: a line each, which
# KIND.results keeps, and what pytest said in KIND.PART.log. The same command goes on after the parts that passed with
# the code as it is. With arguments it runs those: `tests` is all of it. PYTHON names another Python, ENVIRONMENTS
# another folder, PYTEST_ADDOPTS more words for pytest, such as `-n 2 --dist loadfile`.
set -euo pipefail
cd "$(dirname "$0")/.."
kind="${1:?expected lowest, newest or bare}"
shift
folder="${ENVIRONMENTS:-build/environments}"
environment="$folder/$kind"
python="${PYTHON:-python3}"
mkdir -p "$folder"

case "$kind" in
    lowest) what=(--resolution lowest-direct --editable '.[test]') ;;
    newest) what=(--resolution highest --editable '.[test]') ;;
    bare) what=(--editable '.[build]' pytest hypothesis) ;;
    *) echo "error: '$kind': expected lowest, newest or bare" >&2 && exit 2 ;;
esac

made_of="$("$python" --version) $(cksum <pyproject.toml) $PWD"
if [ "$(cat "$environment/made-of" 2>/dev/null)" != "$made_of" ]; then
    if command -v uv >/dev/null; then
        uv=uv
    else
        [ -x "$folder/uv/bin/uv" ] || "$python" -m venv "$folder/uv"
        "$folder/uv/bin/python" -m pip install --quiet --disable-pip-version-check uv
        uv="$folder/uv/bin/uv"
    fi
    "$uv" venv --quiet --clear --python "$python" "$environment"
    "$uv" pip install --quiet --python "$environment/bin/python" "${what[@]}"
    "$uv" pip freeze --quiet --exclude-editable --python "$environment/bin/python" >"$folder/$kind.txt"
    echo "$made_of" >"$environment/made-of"
fi
cat "$folder/$kind.txt"

run() { "$environment/bin/python" -m pytest -q "$@"; }
if [ $# -gt 0 ]; then
    run "$@"
    exit
fi

if [ "$kind" = bare ]; then # without those that compare with a library that it lacks
    for file in $(grep -rlE '^ *(import|from) (sklearn|scipy|jsonschema|mlflow)\b' --include='*.py' tests); do
        set -- "$@" "--ignore=$file"
    done
fi
code="$(git rev-parse --short HEAD) $({ git diff HEAD && git ls-files --others --exclude-standard; } | cksum)"
failed=0
for part in test_package.py recipe test_reference.py pipeline/test_module_builds.py measure report data graph engines \
    calibration/fused calibration/quantizers calibration/rewrites export models; do
    grep -qs "^$code · tests/$part · passed" "$folder/$kind.results" && continue
    log="$folder/$kind.${part//\//-}.log"
    run "tests/$part" "$@" >"$log" 2>&1 && found=passed || found=FAILED failed=1
    echo "$code · tests/$part · $found · $(grep -E "[0-9]+ (passed|failed|error)" "$log" | tail -n 1 | tr -d =)" >>"$folder/$kind.results"
    tail -n 1 "$folder/$kind.results"
    [ "$found" = passed ] || grep -E '^(FAILED|ERROR) ' "$log" || tail -n 20 "$log"
done
exit $failed
