#!/bin/sh
# What `make demo` runs.
set -eu
cd "$(dirname "$0")/.."
segcam demo --output out "$@"
echo
echo "segcam is .venv/bin/segcam here; after '. .venv/bin/activate' it is found by its name."
