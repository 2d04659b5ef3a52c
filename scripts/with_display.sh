#!/usr/bin/env bash
# Run a command with a display: the existing one, otherwise a virtual one, otherwise none (window tests are skipped).
# Usage: scripts/with_display.sh COMMAND [ARGUMENT ...]
set -euo pipefail

export QT_API=pyqt6 LIBGL_ALWAYS_SOFTWARE=1  # for the same pixels with and without a GPU

if [[ -n ${DISPLAY:-} || $(uname -s) == Darwin ]]; then
  exec "$@"
fi
if command -v xvfb-run >/dev/null; then
  unset WAYLAND_DISPLAY  # Qt would prefer it to the virtual screen
  exec xvfb-run -a -s "-screen 0 1400x1000x24 +extension GLX" "$@"
fi
echo "No display and no xvfb-run: Qt draws offscreen, and tests that need a window are skipped." >&2
QT_QPA_PLATFORM=offscreen exec "$@"
