# docker build -t gansynth .                                   the CPU build of torch
# docker build -t gansynth --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 .    an NVIDIA GPU; run with --gpus all
# docker run --rm --shm-size 8g -v "$PWD":/work gansynth demo -o runs/demo
#
# Samples travel through shared memory, of which docker gives 64 MB: hence --shm-size. Files are
# written by user 1000; with another, name yours: --user "$(id -u)".
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY . /src
RUN pip install --no-cache-dir -c /src/constraints.txt --extra-index-url "$TORCH_INDEX" "/src[demo]" \
    && rm -r /src
RUN useradd --uid 1000 --create-home gansynth && install -d -o gansynth /work

USER gansynth
WORKDIR /work
ENTRYPOINT ["gansynth"]
CMD ["--help"]
