# Read by ~/.bashrc on each host of a cluster of `ray up`: the commands of OmniMind and Ray, and where their Ray is.
PATH="$HOME/omnimind/deploy/ray/bin:$HOME/omnimind/.venv/bin:$PATH"
export PATH
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
export RAY_AUTH_TOKEN_PATH="${OMNIMIND_HOME:-${XDG_STATE_HOME:-$HOME/.local/state}/omnimind}/ray-token"
RAY_ADDRESS=$(sed -n 's/^ *"ray_address": "\(.*\)",*$/\1/p' "${RAY_AUTH_TOKEN_PATH%/*}/run/instance.json" 2>/dev/null)
if [ -n "$RAY_ADDRESS" ]; then export RAY_ADDRESS; else unset RAY_ADDRESS; fi
