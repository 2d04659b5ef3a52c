#!/usr/bin/env bash
# Run the checks and the tests, continue after a failure, and fail at the end if anything failed.
# Usage: scripts/check.sh [all | quick | static]    (default: all)
#   all     every check and every test
#   quick   every check, and the tests that are not marked slow
#   static  the checks only
set -uo pipefail  # no -e: one run shows all failures
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

unset PYTHONDONTWRITEBYTECODE # otherwise every worker and child process compiles all modules again

failed=()

# step NAME COMMAND...: a heading, the command, and a note if it fails.
step() {
  local name=$1
  shift
  printf '\n== %s ==\n' "$name"
  "$@" || failed+=("$name")
}

# Pytest runs last, so that its summary ends the output; earlier failures are listed before it.
# tests MARKS: first the tests that can run in parallel, one worker per core, then the others.
# Idle workers take tests from the others; a worker that crashes fails only its current test.
tests() {
  local pytest=(bash scripts/with_display.sh .venv/bin/python -m pytest) alone
  # shellcheck disable=SC2207  # names of tests have no spaces
  alone=($(grep -rlE --include 'test_*.py' 'mark\.(alone|window)' tests | sort))
  step "pytest, parallel" env OMP_NUM_THREADS=1 "${pytest[@]}" -n logical --maxprocesses 4 --max-worker-restart 4 \
    --dist worksteal -m "not (alone or window) and $1"
  if ((${#failed[@]})); then
    printf '\nFailed so far: %s\n' "${failed[*]}"
  fi
  step "pytest, serial" "${pytest[@]}" -m "(alone or window) and $1" "${alone[@]}"
}

mode=${1:-all}
case $mode in
  all | quick | static) ;;
  *)
    echo "check.sh: '$mode' is not a mode; give all, quick or static." >&2
    exit 2
    ;;
esac
if [[ ! -x .venv/bin/python ]]; then
  echo "check.sh: .venv is missing; run 'make setup' first." >&2
  exit 2
fi

step "ruff check" .venv/bin/ruff check .
step "ruff format" .venv/bin/ruff format --check .
step "mypy" .venv/bin/mypy
step "lint-imports" .venv/bin/lint-imports
step "structure" .venv/bin/python scripts/structure.py --check
step "npe2 validate" .venv/bin/npe2 validate napari_unetvnet/napari.yaml

case $mode in
  all) tests "(slow or not slow)" ;;
  quick) tests "not slow" ;;
  static) ((${#failed[@]})) && printf '\nFailed: %s\n' "${failed[*]}" ;;
esac
((${#failed[@]} == 0))
