#!/usr/bin/env bash
# Robust lottery tickets, from a fresh clone to a report.
#
#   ./run.sh                            the demo: offline, small real model, real text
#   ./run.sh CONFIG [key=value ...]     an experiment of configs/ (sst2, imdb ...) or a YAML file
#   ./run.sh CONFIG [key=value ...] --plan      only show what would run, what is done, and how long it may take
#   ./run.sh watch CONFIG               follow a long run in another terminal
#   ./run.sh bench [official=PATH]      speed against PyTorch; bench attacks: attacks against stock TextAttack
#   ./run.sh setup                      only the environment and the packaged assets
#   ./run.sh test [pytest options]      the tests
#   ./run.sh help                       every key of a configuration
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=$here/.venv
export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false GLOG_v=3
# A terminal draws a progress bar again every second, a log file gets one every half minute.
if [ -t 2 ]; then bars=1; else bars=30; fi
export TQDM_MININTERVAL=${TQDM_MININTERVAL:-$bars} TQDM_MAXINTERVAL=${TQDM_MAXINTERVAL:-30}

find_python() {
    local candidate
    for candidate in python3.11 python3.10 python3 python; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] not in ((3, 10), (3, 11)))' \
            >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    echo "error: Python 3.10 or 3.11 with venv is needed (MindSpore 2.7.0 has no wheels for others)" >&2
    exit 1
}

# The environment is made again when requirements.txt changed; a half-made one never counts as made.
set_up() {
    local stamp want python
    want=$(cksum <"$here/requirements.txt")
    stamp=$venv/.requirements
    if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
        python=$(find_python)
        echo "making .venv with $("$python" --version) (one to five minutes)"
        "$python" -m venv --clear "$venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
        echo "$want" >"$stamp"
    fi
    "$venv/bin/python" -m configs.contract.assets
    "$venv/bin/python" -m torch_eval setup
}

# Each stage is a process of its own: MindSpore gives the memory of its graphs back only when one ends.
experiment() {
    local stages half stage
    stages=$("$venv/bin/python" -m configs.contract.plan stages "$@")
    while read -r half stage; do
        in_front "$venv/bin/python" -m "$half" "$stage" "$@"
    done <<<"$stages"
}

# Bash would keep a signal from the command that it waits for: hand it on, and wait until that has saved its work.
# Ctrl-C reaches all without us, but what bash starts in the background ignores it at first: SIGTERM it does not.
in_front() {
    "$@" </dev/null &
    child=$!
    trap 'kill -TERM $child 2>/dev/null || true' TERM INT
    local status=0
    wait $child || status=$?
    while kill -0 $child 2>/dev/null; do
        status=0
        wait $child || status=$?
    done
    trap - TERM INT
    [ $status -eq 0 ] || exit $status
}

case ${1:-demo} in
    help | -h | --help)
        sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        if [ -x "$venv/bin/python" ]; then "$venv/bin/python" -m mindspore_rt --help; fi
        ;;
    setup) set_up ;;
    test)
        set_up
        cd "$here" && exec "$venv/bin/python" -m pytest "${@:2}"
        ;;
    bench)
        set_up
        in_front "$venv/bin/python" -m torch_eval bench "${@:2}"
        ;;
    plan)
        set_up
        shift
        "$venv/bin/python" -m configs.contract.plan show "${@:-demo}"
        ;;
    watch)
        in_front "$venv/bin/python" -m torch_eval watch "${@:2}"
        ;;
    *)
        if [ "${!#}" = --plan ]; then
            exec bash "$here/run.sh" plan "${@:1:$#-1}"
        fi
        set_up
        experiment "${@:-demo}"
        ;;
esac
