# Two stages: the first installs from the locks, with hashes, and builds the wheel; the second holds only the result.
FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src

COPY scripts/requirements.build.lock scripts/requirements.runtime.lock scripts/
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --requirement scripts/requirements.build.lock \
    && python -m venv /opt/relay \
    && /opt/relay/bin/pip install --require-hashes --requirement scripts/requirements.runtime.lock

COPY pyproject.toml README.md LICENSE ./
COPY codegen codegen
COPY handlers handlers
COPY spec spec
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /tmp/wheel . \
    && /opt/relay/bin/pip install --no-deps --no-index /tmp/wheel/*.whl

FROM python:3.11-slim
RUN useradd --uid 10001 --user-group --shell /usr/sbin/nologin --create-home --home-dir /var/lib/relay relay
COPY --from=build /opt/relay /opt/relay
ENV PATH=/opt/relay/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RELAY_HOST=0.0.0.0 \
    RELAY_PORT=8080
USER relay
WORKDIR /var/lib/relay
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ['RELAY_PORT'] + '/livez', timeout=2)"]
CMD ["relay", "serve"]
