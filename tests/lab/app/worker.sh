#!/bin/sh
# Works once a second, and says so.
trap 'exit 0' TERM INT
count=0
while :; do
  count=$((count + 1))
  echo "worker of $(cat /app/text) did job $count"
  sleep 1 &
  wait $!
done
