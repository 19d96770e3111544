# The image in which Docker and Kubernetes work pools run the flows: docs/operations.md, "In containers".
FROM python:3.11.14-slim-bookworm AS build

COPY pyproject.toml constraints.txt README.md LICENSE /src/
COPY blocks /src/blocks
COPY tasks /src/tasks
COPY flows /src/flows
# Exact versions, those that the tests ran with.
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --constraint /src/constraints.txt "/src[duckdb]"

FROM python:3.11.14-slim-bookworm

COPY --from=build /opt/venv /opt/venv
# Deployments name flows by file, under HEADRACE_HOME: the pull step of prefect.yaml goes there.
COPY flows /opt/headrace/flows
COPY tasks /opt/headrace/tasks
COPY blocks /opt/headrace/blocks
RUN useradd --uid 10001 --create-home headrace
ENV PATH=/opt/venv/bin:$PATH HEADRACE_HOME=/opt/headrace PYTHONUNBUFFERED=1
WORKDIR /opt/headrace
USER 10001:10001
# What a work pool gives as the command takes its place.
CMD ["headrace", "--help"]
