# edge-tui in a container: the workbench, `run`, `serve` and `bench`. docs/container.md says how to use it.
#
# On the processor:      docker build -t edge-tui .
# On an NVIDIA GPU:      docker build -t edge-tui:cuda --build-arg TORCH_INDEX= \
#                            --build-arg BASE=nvidia/cuda:12.8.1-runtime-ubuntu24.04 .
ARG BASE=debian:bookworm-slim
FROM ${BASE}

# Where torch comes from besides PyPI: its wheels for processors. Empty takes PyPI's, which bring CUDA along.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

ENV PATH=/opt/edge-tui/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    LANG=C.UTF-8 \
    TERM=xterm-256color

# The compiler is for Triton, which builds a small launcher for each kernel; without a GPU nothing needs it.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv ca-certificates \
    && if [ -d /usr/local/cuda ]; then \
           apt-get install --yes --no-install-recommends gcc libc6-dev python3-dev; \
       fi \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 10001 --shell /bin/sh edge \
    && mkdir -p /home/edge/.cache/huggingface /home/edge/.config/edge-tui /home/edge/.local/share/edge-tui \
    && chown -R edge:edge /home/edge

# Torch first: it is most of the image, and changes least.
COPY constraints.txt /build/constraints.txt
RUN python3 -m venv /opt/edge-tui \
    && pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c /build/constraints.txt torch

COPY pyproject.toml README.md LICENSE config.toml /build/
COPY decoders /build/decoders
COPY edge_tui /build/edge_tui
COPY themes /build/themes
COPY presets /build/presets
RUN pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -c /build/constraints.txt "/build[serve]" \
    && rm -rf /build

USER edge
WORKDIR /home/edge
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=6s --start-period=60s CMD ["python", "-m", "edge_tui.cli.health"]
ENTRYPOINT ["edge-tui"]
