#!/bin/sh
# What `make demo` runs. Segcam has no demo model of its own yet, so it uses the shared test data beside the checkout.
set -eu
cd "$(dirname "$0")/.."
data=../shared/data
model=$data/models/espnet_cityscapes_1024x512.onnx
video=$data/video/derived_cuts_3stills_2048x1024_60f.mp4
if [ ! -f "$model" ] || [ ! -f "$video" ]; then
    echo "Segcam is installed, but its own demo model is not there yet, and there is no shared test data beside this"
    echo "checkout to use instead. With any segmentation network of yours and any video:"
    echo
    echo "  .venv/bin/segcam --engine MODEL.onnx --source VIDEO.mp4 --output out.mp4"
    echo
    echo "This machine:"
    segcam doctor
    exit 0
fi
mkdir -p out
segcam --engine "$model" --source "$video" --legend --output out/demo.mp4 --output out/demo.jsonl
echo
echo "Open out/demo.mp4 (every pixel named) and out/demo.jsonl (shares of each class, frame by frame). Then your own:"
echo
echo "  .venv/bin/segcam --engine $model --source YOUR_VIDEO.mp4 --output out/mine.mp4"
echo "  .venv/bin/segcam --engine $model --source YOUR_VIDEO.mp4 --benchmark"
