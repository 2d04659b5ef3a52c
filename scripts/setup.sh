#!/usr/bin/env bash
# Create .venv with the plugin, napari and the development tools, and install the system libraries that Qt needs.
# Fast if nothing has changed. PYTHON=/path/to/python chooses the interpreter of a new .venv.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."

stamp=.venv/.installed
qt_packages=(
  libdbus-1-3 libegl1 libfontconfig1 libgl1 libgl1-mesa-dri libglib2.0-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0
  libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-shape0 libxcb-xinerama0 libxkbcommon-x11-0 xauth xvfb
)

say() { echo "setup: $*" >&2; }

fail() {
  say "$@"
  exit 1
}

# Checksum of everything that the installation depends on; a change reinstalls.
fingerprint() { cat pyproject.toml constraints.txt scripts/setup.sh | cksum; }

recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

on_debian() { command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; }

find_python() {
  local name
  if [[ -n ${PYTHON:-} ]]; then
    recent "$PYTHON" || fail "PYTHON=$PYTHON is not Python 3.11 or newer; set PYTHON to one that is."
    echo "$PYTHON"
    return
  fi
  for name in python3 python3.13 python3.12 python3.11; do
    if recent "$name"; then
      echo "$name"
      return
    fi
  done
  fail "Python 3.11 or newer was not found; install it, or set its path: PYTHON=/path/to/python make setup"
}

# apt_install PACKAGE...: install as root, otherwise print the command; false if packages are still missing.
apt_install() {
  if ((EUID == 0)); then
    say "installing $*"
    apt-get update -qq >/dev/null &&
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "$@" \
        </dev/null >/dev/null && return
  fi
  say "missing system packages; please run: sudo apt-get update && sudo apt-get install -y $*"
  return 1
}

# Debian and Ubuntu ship ensurepip, which installs pip into a new venv, in a separate package.
ensure_ensurepip() {
  local python=$1 package
  "$python" -c 'import ensurepip' 2>/dev/null && return
  package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
  on_debian || fail "$python cannot create virtual environments (no ensurepip); install its venv package."
  apt_install "$package" || exit 1
}

# True if .venv runs, has pip, and was created in this folder (its scripts contain the path).
venv_is_sound() {
  [[ -x .venv/bin/pip ]] && recent .venv/bin/python && .venv/bin/python -c 'import pip' 2>/dev/null &&
    grep -qsF "$PWD/.venv" .venv/bin/activate
}

make_venv() {
  local python
  # Emptying what a link points to would break the checkout that it belongs to.
  [[ ! -L .venv ]] || fail ".venv is a link to $(readlink .venv), of another folder, and is left as it is; remove the link."
  python=$(find_python)
  ensure_ensurepip "$python"
  say "creating .venv with $("$python" --version)"
  "$python" -m venv --clear .venv
}

install_project() {
  rm -f "$stamp" # so that an interrupted installation is repeated
  say "installing the plugin, napari and the development tools (a few minutes the first time)"
  [[ -t 1 ]] || export PIP_QUIET=2                      # downloads are shown in a terminal, only errors in a log
  .venv/bin/python -m pip install --upgrade "pip>=25.1" # the first pip with --group
  .venv/bin/python -m pip install --editable ".[all]" --group dev -c constraints.txt
  fingerprint >"$stamp"
}

install_qt_libraries() {
  local installed missing=() name
  if ! on_debian; then
    [[ $(uname -s) == Darwin ]] ||
      say "if no window opens, install what Qt 6 needs here: EGL, OpenGL (Mesa), xcb-util-*, libxkbcommon-x11, Xvfb"
    return 0
  fi
  # shellcheck disable=SC2016  # the ${...} are dpkg-query's
  installed=$(dpkg-query -W -f '${db:Status-Abbrev}${Package}\n' 'lib*' xauth xvfb 2>/dev/null || true)
  for name in "${qt_packages[@]}"; do
    grep -qE "^ii +$name(t64)?\$" <<<"$installed" || missing+=("$name") # newer releases add t64 to some names
  done
  ((${#missing[@]} == 0)) || apt_install "${missing[@]}" ||
    say "continuing without them; tests that need a window are skipped"
}

case $(uname -s) in
  MINGW* | MSYS* | CYGWIN*) fail "on Windows follow the README: python -m venv .venv, then pip install -e .[all]" ;;
esac
venv_is_sound || make_venv
[[ -f $stamp && $(<"$stamp") == "$(fingerprint)" ]] || install_project
install_qt_libraries
