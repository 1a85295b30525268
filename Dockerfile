# An image with rrl, its pinned requirements and what it starts: pdsh and ssh for several machines, bubblewrap for the sandbox.
#   docker build -t rrl .                                                                        for CPUs
#   docker build -t rrl --build-arg BASE=nvidia/cuda:12.8.1-devel-ubuntu24.04 --build-arg EXTRA_INDEX= .    for NVIDIA GPUs
ARG BASE=debian:bookworm-slim
FROM ${BASE}
# torch for CPUs comes from here; an empty one leaves pip its default, torch with CUDA
ARG EXTRA_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_EXTRA_INDEX_URL=${EXTRA_INDEX} PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 DEBIAN_FRONTEND=noninteractive

# python3-dev and g++ are for compile=layers: torch and Triton compile against them
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-dev python3-venv g++ ca-certificates bubblewrap pdsh openssh-client \
 && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/rrl/bin:${PATH} PDSH_RCMD_TYPE=ssh

# torch first: its layer stays when only the code changes
COPY constraints.txt /src/
RUN python3 -m venv /opt/rrl && pip install -c /src/constraints.txt torch
COPY . /src
RUN pip install -c /src/constraints.txt "/src[lora,sweep,tensorboard]" && rrl-train dry_run=true

WORKDIR /data
CMD ["rrl-doctor"]
