# The image of every part of cohort: proxy, controller, load generator, and what people type.
#
#   docker build -t cohort .
#   docker build -t cohort --build-arg BUILDER=python:3.11-slim-bookworm --build-arg BASE=... .
#
# BUILDER needs Python with venv, and apt; BASE needs the same Python at the same path and nothing else, no shell either.
ARG BASE=docker.io/library/python:3.11-slim-bookworm
ARG BUILDER=${BASE}

FROM ${BUILDER} AS builder
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PROJECT_ENVIRONMENT=/opt/cohort \
    UV_PYTHON_DOWNLOADS=never \
    UV_SYSTEM_CERTS=true
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --quiet uv==0.13.8
WORKDIR /src
COPY pyproject.toml uv.lock hatch_build.py README.md LICENSE ./
# Dependencies first: they change less often than the sources, and this layer is kept then. Compiled to bytecode here
# because the root filesystem of a container is read-only.
RUN /opt/uv/bin/uv sync --quiet --locked --no-dev --no-install-project --python "$(command -v python3)"
# What compiles the modules that every request passes, in an environment of its own: nothing of it goes into the image.
RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends gcc libc6-dev >/dev/null && \
    { test -e "$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" || \
      apt-get install -qq -y --no-install-recommends python3-dev >/dev/null; }
RUN UV_PROJECT_ENVIRONMENT=/opt/build /opt/uv/bin/uv sync --quiet --locked --no-default-groups --group build \
    --no-install-project --python "$(command -v python3)"
COPY proxy ./proxy
RUN /opt/build/bin/python hatch_build.py
COPY controller ./controller
COPY loadtest ./loadtest
COPY demo ./demo
RUN /opt/uv/bin/uv sync --quiet --locked --no-dev --no-editable --python "$(command -v python3)"

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="cohort" \
      org.opencontainers.image.description="Ingress that splits users, not requests, between the stable and the canary version of a service" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=builder /opt/cohort /opt/cohort
ENV PATH=/opt/cohort/bin:/usr/local/bin:/usr/bin:/bin
WORKDIR /
USER 65532:65532
EXPOSE 8080 8082 8083
ENTRYPOINT ["/opt/cohort/bin/cohort"]
CMD ["--help"]
