# personad with the CUDA backend. Build from the root of the source: ./dev image --cuda
#
#   docker run -d --gpus all --name personad -v personad-run:/run/personad \
#       -v personad-data:/var/lib/personad -v "$HOME/.cache/personad/models:/models:ro" \
#       personad:cuda
#   docker exec -it personad persona chat
#
# The image holds no driver and no CUDA: the driver's libraries come from the host (--gpus), the
# runtime is inside libpersonad_cuda.so. Without a card the CPU computes, and info says why.
ARG BASE=debian:12-slim

FROM ${BASE} AS build
WORKDIR /source
COPY scripts/lib.sh scripts/cuda.sh scripts/
RUN root=/source && . scripts/lib.sh && packages_need "$packages_build" "$packages_cuda" \
    && sh scripts/cuda.sh
COPY . .
RUN cmake -S . -B /build -G Ninja -DCMAKE_INSTALL_PREFIX=/usr -DPERSONAD_TESTS=OFF \
        -DPERSONAD_CUDA=ON "-DPERSONAD_NVCC=$(sh scripts/cuda.sh find)" \
    && cmake --build /build \
    && DESTDIR=/installed cmake --install /build --strip

FROM ${BASE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends libuv1 libprotobuf-c1 libjansson4 \
        libpcre2-8-0 libutf8proc2 libnettle8 libinih1 libedit2 libsqlite3-0 \
    && apt-get clean && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 990 personad \
    && useradd --system --uid 990 --gid personad --home-dir /var/lib/personad personad \
    && install -d -o personad -g personad -m 0700 /run/personad /var/lib/personad
COPY --from=build /installed/ /
USER personad
WORKDIR /var/lib/personad
# What the container runtime brings in with --gpus.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENV PERSONAD_SOCKET=/run/personad/socket
VOLUME ["/run/personad", "/var/lib/personad"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 CMD ["persona", "info"]
ENTRYPOINT ["personad", "--socket", "/run/personad/socket", "--data", "/var/lib/personad"]
CMD ["--model", "/models/SmolLM2-135M-Instruct.Q4_1.gguf"]
