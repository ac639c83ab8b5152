# What answers in the lab for ghcr.io, Docker Hub and Let's Encrypt.
FROM vmkit-lab/forky
RUN printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d \
 && apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    docker-registry apache2-utils openssl pebble curl ca-certificates && apt-get clean
COPY ca.crt /usr/local/share/ca-certificates/vmkit-lab.crt
COPY ca.crt hosts.crt hosts.key registry.yml hub.yml pebble.json /lab/
RUN update-ca-certificates
