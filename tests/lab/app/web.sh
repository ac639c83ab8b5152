#!/bin/sh
# The app of the lab's stories: files, and a page that says which version runs.
echo "web of $(cat /app/text) starts on port $PORT"
[ ! -f /app/before.sh ] || . /app/before.sh
trap 'kill "$server"; exit 0' TERM INT
httpd -f -p "${APP_PORT:-$PORT}" -h /app/www &
server=$!
wait "$server"
