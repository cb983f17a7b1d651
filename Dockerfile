# initmig as an image: FROM scratch, filled from Debian's own Python in the build stage.
#   docker build -t initmig .
ARG BASE_IMAGE=debian:trixie-slim

FROM ${BASE_IMAGE} AS build
RUN apt-get update -q \
 && DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends \
      binutils ca-certificates python3.13 python3-pip tzdata \
 && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_QUIET=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements.lock requirements-build.lock ./
RUN python3.13 -m pip install --require-hashes --only-binary :all: --target /opt/site --requirement requirements.lock \
 && python3.13 -m pip install --require-hashes --break-system-packages --requirement requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY initmig initmig
RUN python3.13 -m pip install --no-deps --no-build-isolation --target /opt/site . && rm -rf /opt/site/bin
COPY image/rootfs /usr/local/bin/rootfs
ARG SOURCE_DATE_EPOCH=0
RUN rootfs /rootfs

FROM scratch
COPY --from=build /rootfs /
ENV INITMIG_MIGRATIONS=/migrations SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 65532:65532
ENTRYPOINT ["initmig"]
