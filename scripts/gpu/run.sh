#!/usr/bin/env bash
# Runs everything there is to run on one NVIDIA GPU, from the folder that pack.sh made: correctness,
# decode, prefill, a LoRA step and an adapter's hand-over, beside transformers and PEFT.
# usage: OUT=RESULTS run.sh [--device cuda|cpu] [--sizes tiny,0.5b,1.5b,7b] [--budget SECONDS] ...
#        (session.py --help lists the rest)
# Needs Python with torch, transformers and peft; for the GPU libcuda, libnvrtc and the CUDA headers.
# From the environment: PYTHON (python3), WORK (model folders, kept between calls), CUDA_PATH.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
work=${WORK:-${TMPDIR:-/tmp}/crrl-gpu}
mkdir -p "$work" "${OUT:?set OUT to a folder for the results}"

for name in crrl model_speed; do
    if [ ! -x "$work/$name" ] || [ "$here/$name.xz" -nt "$work/$name" ]; then
        "$python" -c 'import lzma, shutil, sys
shutil.copyfileobj(lzma.open(sys.argv[1]), open(sys.argv[2], "wb"))' "$here/$name.xz" "$work/$name"
        chmod +x "$work/$name"
    fi
done

# Headers and libnvrtc: of a toolkit, or of the packages that torch brings along.
if [ -z "${CUDA_PATH:-}" ]; then
    for place in /usr/local/cuda $("$python" -c 'import glob, site
for s in site.getsitepackages() + [site.getusersitepackages()]:
    print(*glob.glob(s + "/nvidia/cu1[23]"), *glob.glob(s + "/nvidia/cuda_runtime"))'); do
        if [ -f "$place/include/cuda_runtime.h" ]; then export CUDA_PATH=$place; break; fi
    done
fi
libraries=$("$python" -c 'import glob, os, site
found = {os.path.dirname(f) for s in site.getsitepackages() + [site.getusersitepackages()]
         for f in glob.glob(s + "/nvidia/*/lib/libnvrtc.so*")}
print(":".join(sorted(found)))')
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$libraries
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONWARNINGS=ignore
exec "$python" "$here/session.py" --programs "$work" --models "$work" --out "$OUT" "$@"
