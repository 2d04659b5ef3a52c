#!/usr/bin/env bash
# Run the checks and the tests, go on after a failure, and fail at the end if anything failed.
# Usage: scripts/check.sh [all | quick | static]    (default: all)
#   all     every check and every test
#   quick   every check, and the tests that are not marked slow
#   static  the checks only
set -uo pipefail  # no -e: one run shows all failures
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

unset PYTHONDONTWRITEBYTECODE # else each worker and each of the many child processes compiles everything again

failed=()

# step NAME COMMAND...: a heading, the command, and a note if it fails.
step() {
  local name=$1
  shift
  printf '\n== %s ==\n' "$name"
  "$@" || failed+=("$name")
}

# Pytest comes last, so that its summary closes the output; what failed before it is told ahead of it.
# tests MARKS: those that may run beside each other, a worker a core, then those that may not.
# A worker that has nothing left takes over from the others; one that dies fails the test that it was at, and no other.
tests() {
  local pytest=(bash scripts/with_display.sh .venv/bin/python -m pytest) alone
  # shellcheck disable=SC2207  # names of tests have no spaces
  alone=($(grep -rlE --include 'test_*.py' 'mark\.(alone|window)' tests | sort))
  step "pytest, side by side" env OMP_NUM_THREADS=1 "${pytest[@]}" -n logical --maxprocesses 4 --max-worker-restart 4 \
    --dist worksteal -m "not (alone or window) and $1"
  if ((${#failed[@]})); then
    printf '\nFailed so far: %s\n' "${failed[*]}"
  fi
  step "pytest, one by one" "${pytest[@]}" -m "(alone or window) and $1" "${alone[@]}"
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
  echo "check.sh: there is no .venv; run 'make setup' first." >&2
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
