#!/usr/bin/env bash
# Start Open WebUI as its own image does: `bash start.sh` in /app/backend.
# The key that signs sessions comes from WEBUI_SECRET_KEY, else from WEBUI_SECRET_KEY_FILE, which is
# made at the first start. (WEBUI_JWT_SECRET_KEY is the older name; Open WebUI reads it itself.)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

if [[ -z "${WEBUI_SECRET_KEY:-}${WEBUI_JWT_SECRET_KEY:-}" ]]; then
    key_file=${WEBUI_SECRET_KEY_FILE:-.webui_secret_key}
    if [[ ! -s "$key_file" ]]; then
        (umask 077 && head -c 24 /dev/urandom | base64 >"$key_file")
    fi
    WEBUI_SECRET_KEY=$(<"$key_file")
    export WEBUI_SECRET_KEY
fi

exec python3 -m uvicorn open_webui.main:app \
    --host "${HOST:-0.0.0.0}" --port "${PORT:-8080}" \
    --forwarded-allow-ips "${FORWARDED_ALLOW_IPS:-*}" --workers "${UVICORN_WORKERS:-1}"
