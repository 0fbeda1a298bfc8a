# Two stages: the first installs from the locks, with hashes, and builds the wheel; the second holds only the result, and
# nothing that installs or compiles. `scripts/replay_dockerfile` carries it out without a container engine.
#
# By tag and not by digest: every build takes the fixes of Python and Debian, and a digest that nobody renews takes none.
# For a build that can be repeated: docker build --build-arg PYTHON_IMAGE=python:3.11-slim-trixie@sha256:…
ARG PYTHON_IMAGE=python:3.11-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src

COPY scripts/requirements.build.lock scripts/requirements.runtime.lock scripts/
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --requirement scripts/requirements.build.lock \
    && python -m venv --without-pip /opt/relay \
    && /opt/build/bin/pip --python /opt/relay/bin/python install --require-hashes --only-binary :all: \
        --requirement scripts/requirements.runtime.lock

COPY pyproject.toml README.md LICENSE ./
COPY codegen codegen
COPY handlers handlers
COPY spec spec
RUN --network=none /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /tmp/wheel . \
    && /opt/build/bin/pip --python /opt/relay/bin/python install --no-deps --no-index /tmp/wheel/*.whl

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="chatgpt-team-relay" \
    org.opencontainers.image.licenses="MIT"
RUN useradd --uid 10001 --user-group --shell /usr/sbin/nologin --create-home --home-dir /var/lib/relay relay
COPY --from=build /opt/relay /opt/relay
# Everything secret comes when it runs. Beside /tmp it writes to what the settings name, below /var/lib/relay by custom.
ENV PATH=/opt/relay/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RELAY_HOST=0.0.0.0 \
    RELAY_PORT=8080
# By number, or Kubernetes cannot tell that it is not root.
USER 10001:10001
WORKDIR /var/lib/relay
EXPOSE 8080
STOPSIGNAL SIGTERM
# Not urllib: that would ask a proxy which the environment may name.
HEALTHCHECK --interval=30s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-I", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('RELAY_PORT') or 8080), timeout=2); c.request('GET', '/livez'); sys.exit(c.getresponse().status != 200)"]
CMD ["relay", "serve"]
