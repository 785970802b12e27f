# The big image has a compiler, which gives crcmod (checksums of COS uploads) its fast half; the small one runs.
FROM python:3.13-trixie AS build
RUN python -m venv /opt/venv
COPY requirements.txt .
RUN /opt/venv/bin/pip install --no-cache-dir --no-input -r requirements.txt

FROM python:3.13-slim-trixie
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
RUN useradd --system --uid 10001 --no-create-home --home-dir /app wxiai && install -d -o wxiai data
COPY --from=build /opt/venv /opt/venv
COPY . .
USER wxiai
VOLUME /app/data
EXPOSE 8000
# Runs the command it is given: those of the Procfile. Nothing is installed or migrated behind its back.
CMD ["gunicorn", "-c", "web/gunicorn_conf.py", "web.wsgi:app"]
