#!/usr/bin/env bash
# Run a command with a screen: the one that is there, else a virtual one, else none (window tests then skip themselves).
# Usage: scripts/with_display.sh COMMAND [ARGUMENT ...]
set -euo pipefail

export QT_API=pyqt6 LIBGL_ALWAYS_SOFTWARE=1  # the same pixels with and without a graphics card

if [[ -n ${DISPLAY:-} || $(uname -s) == Darwin ]]; then
  exec "$@"
fi
if command -v xvfb-run >/dev/null; then
  unset WAYLAND_DISPLAY  # Qt would prefer it to the virtual screen
  exec xvfb-run -a -s "-screen 0 1400x1000x24 +extension GLX" "$@"
fi
echo "No display and no xvfb-run: Qt draws offscreen, and whatever needs a real window is skipped." >&2
QT_QPA_PLATFORM=offscreen exec "$@"
