# initmig's image: FROM scratch, with Debian's own Python from the build stage.
#   docker build -t initmig .
# docs/reference/image.md lists what is in it; docs/how-to/your-own-image.md shows how to extend it.
# The digest is the index of all platforms. `make pin-base` writes the registry's current one.
ARG BASE_IMAGE=debian:trixie-slim@sha256:a29215f6a35e51e22adffa17f89e9d2ef06214e64a2bad10d765c46aea49f11f

FROM ${BASE_IMAGE} AS build
RUN apt-get update -q \
 && DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends \
      binutils ca-certificates patchelf python3.13 python3-pip tzdata \
 && rm -rf /var/lib/apt/lists/*
ENV PIP_NO_CACHE_DIR=1 PIP_QUIET=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements.lock requirements-build.lock ./
RUN python3.13 -m pip install --no-compile --require-hashes --only-binary :all: --target /opt/site --requirement requirements.lock \
 && python3.13 -m pip install --require-hashes --break-system-packages --requirement requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY initmig initmig
RUN python3.13 -m pip install --no-compile --no-deps --no-build-isolation --target /opt/site . && rm -rf /opt/site/bin
COPY image /opt/image
ARG SOURCE_DATE_EPOCH=0
RUN /opt/image/rootfs /rootfs

FROM scratch
COPY --from=build /rootfs /
ENV INITMIG_MIGRATIONS=/migrations SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 65532:65532
ENTRYPOINT ["initmig"]
# VERSION is the one in initmig/version.py. A build from a repository sets the others.
ARG VERSION=0.1.0
ARG SOURCE=unknown
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="initmig" \
      org.opencontainers.image.description="An init container for PostgreSQL migrations: waits, locks, applies what is pending, exits." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
