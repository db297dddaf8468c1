# syntax=docker/dockerfile:1
# Snakemake and the training environment, from the same lock files as `make setup`. See docs/elsewhere.md.
#
#   docker build --tag registry.example/snaketune:0.1.0 .
#
# Behind a package mirror, mount your pip.conf as a secret for the build; it isn't kept in the image:
#
#   docker build --secret id=pipconf,src=$HOME/.config/pip/pip.conf …
#
# or pass single settings, --build-arg PIP_INDEX_URL=…; these stay in the build history, so don't put a password in them.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim-bookworm

# git: the commit in provenance.json.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*

COPY scripts/make_environment.py /opt/snaketune/scripts/
COPY envs/train/requirements.txt /opt/snaketune/envs/train/
COPY envs/workflow/requirements.txt /opt/snaketune/envs/workflow/

ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_TRUSTED_HOST PIP_DEFAULT_TIMEOUT
RUN --mount=type=secret,id=pipconf,target=/etc/pip.conf \
    cd /opt/snaketune \
    && python scripts/make_environment.py --directory /opt/snaketune/venv \
        --lock envs/train/requirements.txt envs/workflow/requirements.txt \
    && rm -rf /root/.cache

# Training doesn't need root.
RUN useradd --uid 10001 --create-home snaketune && install --directory --owner snaketune /workdir
ENV PATH=/opt/snaketune/venv/bin:$PATH \
    HF_HUB_DISABLE_TELEMETRY=1 \
    DO_NOT_TRACK=1 \
    PYTHONUNBUFFERED=1
USER 10001
WORKDIR /workdir
