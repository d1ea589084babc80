# What the stack builds: from an official Python image, or, for places without a registry, from a plain Debian
# (docker-compose.local.yml). Python packages come by the hashes of deploy/*.lock.
ARG BASE_IMAGE=python:3.13.16-slim-bookworm@sha256:a1165e272e578941b84abc79e4ab38a0305cd12803a5c4247979ac7655f4d641

# hadolint global ignore=DL3008
# (Debian's archive keeps only the newest version of a package: one that is named would be gone at the next security fix)

FROM ${BASE_IMAGE} AS python
RUN command -v python3 >/dev/null || { apt-get update -q && apt-get install -q -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*; }
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin poolbench
ENV PATH=/opt/poolbench/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /srv/poolbench

FROM python AS build
RUN python3 -c 'import ensurepip' 2>/dev/null || { apt-get update -q \
    && apt-get install -q -y --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/*; }
COPY deploy/build.lock ./
RUN python3 -m venv /opt/poolbench \
    && pip install -q --no-cache-dir --disable-pip-version-check --require-hashes -r build.lock

FROM build AS service-packages
COPY deploy/service.lock ./
RUN pip install -q --no-cache-dir --disable-pip-version-check --require-hashes --no-deps --no-build-isolation -r service.lock

FROM service-packages AS service-alone
RUN pip uninstall -q -y setuptools pip

FROM python AS app
COPY --from=service-alone /opt/poolbench /opt/poolbench
COPY app.py openapi.json ./
COPY templates ./templates
COPY poolbench ./poolbench
COPY db ./db
COPY wsgi ./wsgi
USER 10001:10001
EXPOSE 8000
CMD ["gunicorn", "-c", "wsgi/gunicorn_conf.py", "wsgi:create_app()"]

# The tool needs all packages of the service, too.
FROM service-packages AS loadgen-packages
COPY deploy/requirements.lock ./
RUN pip install -q --no-cache-dir --disable-pip-version-check --require-hashes --no-deps --no-build-isolation \
    -r requirements.lock
COPY . .
RUN pip install -q --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation . \
    && pip uninstall -q -y pip \
    && find /opt/poolbench/lib -type d -name tests -prune -exec rm -r {} +

FROM python AS loadgen
COPY --from=loadgen-packages /opt/poolbench /opt/poolbench
COPY loadgen/lab/scripts ./scripts
RUN mkdir /reports && chown 10001:10001 /reports
USER 10001:10001
ENTRYPOINT ["loadgen"]

# The tool for any service (docs/docker.md): its scripts and reports are in a folder of the user's, mounted at /work.
FROM loadgen AS tool
WORKDIR /work
CMD ["--help"]

FROM ${BASE_IMAGE} AS pgbouncer
RUN apt-get update -q && apt-get install -q -y --no-install-recommends pgbouncer && rm -rf /var/lib/apt/lists/*
USER 10001:10001
EXPOSE 6432
# waits for the transactions that run
STOPSIGNAL SIGINT
CMD ["pgbouncer", "/etc/poolbench/pgbouncer.ini"]
