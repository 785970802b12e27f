# The big image has a compiler, which gives crcmod (checksums of COS uploads) its fast half; the small one runs.
FROM python:3.13-trixie AS build
RUN python -m venv /opt/venv
COPY requirements.txt .
RUN /opt/venv/bin/pip install --no-cache-dir --no-input -r requirements.txt

# What the backup before an upgrade needs. Debian's own pg_dump is older than compose's server and would refuse it.
FROM postgres:18.6 AS postgres
RUN mkdir -p /client/bin /client/lib && cd /usr/lib/postgresql/18/bin && cp pg_dump pg_restore psql /client/bin \
 && ldd pg_dump pg_restore psql | awk '$3 ~ /^\// && $1 !~ /^lib(c|m|dl|rt|resolv|pthread)\.so/ {print $3}' | sort -u \
  | xargs cp -Lt /client/lib

FROM python:3.13-slim-trixie
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
RUN useradd --system --uid 10001 --no-create-home --home-dir /app wxiai && install -d -o wxiai data
COPY --from=build /opt/venv /opt/venv
COPY --from=postgres /client /opt/postgresql
# Its libraries are for it alone. `--version` shows here, not at the first upgrade, whether it runs.
RUN set -e; cd /usr/local/bin; for name in pg_dump pg_restore psql; do \
      printf '#!/bin/sh\nLD_LIBRARY_PATH=/opt/postgresql/lib exec /opt/postgresql/bin/%s "$@"\n' $name >$name; \
      chmod +x $name; ./$name --version; \
    done
COPY . .
USER wxiai
VOLUME /app/data
EXPOSE 8000
# Runs the command it is given: those of the Procfile. Nothing is installed or migrated behind its back.
CMD ["gunicorn", "-c", "web/gunicorn_conf.py", "web.wsgi:app"]
