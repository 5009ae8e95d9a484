# The daemon with what it imports, and nothing else: no compiler, no pip, no shell scripts.
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
COPY requirements.txt .
# Wheels only, each checked against its hash: nothing is compiled and no package runs code here.
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
        --only-binary :all: --require-hashes -r requirements.txt

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="Video Chunk Uploader" \
      org.opencontainers.image.description="Uploads MP4 recordings into S3 while they are still being recorded, byte for byte."
# A fixed number, so that people can give it rights on the watched folder.
RUN groupadd --gid 10001 uploader \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin uploader \
    && python -m pip uninstall --yes --quiet --root-user-action=ignore pip
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
# .dockerignore lets in the code alone. The mode is set here: a clone made with a strict umask would leave files
# that the user below cannot read.
COPY --chmod=0555 . ./
RUN /opt/venv/bin/python -m compileall -q .
# PYTHONDONTWRITEBYTECODE: the root file system is read-only when it runs.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    WATCH_DIR=/input \
    HTTP_HOST=0.0.0.0 \
    HTTP_PORT=8000
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# The image has no curl. http.client, unlike urllib, never asks a proxy that Docker put into the environment.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-S", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['HTTP_PORT']), timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "main.py"]
